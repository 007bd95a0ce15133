//! Upgrades: two releases of FiberLB on one installation in a lab, under traffic. `make test-upgrade` runs it,
//! docs/operating.md says what operators may conclude from it.
//!
//! [`builds`] has the binaries of both releases; a [`site`] runs any mixture of them, with [`traffic`] on the [`trees`] that
//! tenants have. Each scenario proves a list of claims, which [`report`] prints as they are proven and sums up at the end:
//! [`mixed`] (agents and plugin of different releases), [`single`] (one plugin on an embedded store), [`replicated`] (three
//! plugins on etcd), [`refusal`] (stores of a later release).

pub mod builds;
pub mod checks;
pub mod mixed;
pub mod refusal;
pub mod replicated;
pub mod report;
pub mod run;
pub mod single;
pub mod site;
pub mod stage;
pub mod traffic;
pub mod trees;
