//! Components as text, for whoever tries what no compiler of a language would make: handlers of
//! calls that are whole but for their core module, which each test writes itself. What must become
//! of them is the tests' to say.

pub mod component;
