//! Chaos: everything of a FiberLB installation may die, freeze or be cut off at any moment, while clients write and
//! connect without a pause; then it is judged what they met. docs/chaos.md says how to run and read it.
//!
//! [`schedule`] says what fails when, as a pure function of a seed; [`nemesis`] does it to a [`site`]. [`clients`] write a
//! [`history`], which [`judge`] looks at by way of [`linear`] and [`register`]; [`excuse`] says which requests of tenants may
//! fail. [`run`] is the one line that all of it stands in.

pub mod clients;
pub mod clock;
pub mod excuse;
pub mod flat;
pub mod history;
pub mod judge;
pub mod linear;
pub mod nemesis;
pub mod objects;
pub mod register;
pub mod report;
pub mod run;
pub mod schedule;
pub mod shop;
pub mod site;
pub mod traffic;
pub mod verify;
