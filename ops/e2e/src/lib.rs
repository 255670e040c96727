//! What the tests of several programs share: components as text, for whoever tries what no compiler
//! of a language would make (handlers of calls that are whole but for their core module, which each
//! test writes itself), and what the kernel says of a process. What must become of either is the
//! tests' to say.

pub mod component;
pub mod process;
