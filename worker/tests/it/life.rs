//! A worker's life, from ready to its end.
