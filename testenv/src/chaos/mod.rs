//! Chaos: everything of a FiberLB installation may die, freeze or be cut off at any moment, while clients write and
//! connect without a pause; then it is judged what they met.
//!
//! [`history`] and [`schedule`] are plain data, [`linear`], [`register`], [`judge`] pure functions over them. A schedule
//! of faults follows from its seed alone.

pub mod history;
pub mod judge;
pub mod linear;
pub mod register;
