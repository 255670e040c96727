//! What the compiler takes and what it refuses.
