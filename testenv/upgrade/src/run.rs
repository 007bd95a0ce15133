//! All scenarios, one after the other.

use clap::ValueEnum;

use crate::builds::{Build, Builds};
use crate::report::Report;
use crate::{newer_store, several_plugins, single_plugin, version_skew};

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Old node agents with a new plugin.
    OldAgents,
    /// New node agents with an old plugin.
    NewAgents,
    /// One plugin on an embedded store, upgraded and taken back.
    Single,
    /// Three plugins on etcd, upgraded and taken back one after the other.
    Replicated,
    /// A store in which a later release has written.
    Refusal,
}

impl Scenario {
    fn title(self) -> &'static str {
        match self {
            Self::OldAgents => "old-agents: old node agents, new plugin",
            Self::NewAgents => "new-agents: new node agents, old plugin",
            Self::Single => "single: one plugin on an embedded store",
            Self::Replicated => "replicated: three plugins on etcd",
            Self::Refusal => "refusal: what a later release has written",
        }
    }
}

/// Runs scenarios. One whose claim fails ends there, and the next one is run.
pub(crate) async fn run(builds: &Builds, scenarios: &[Scenario]) -> Report {
    let mut report = Report::default();
    for scenario in scenarios {
        report.scenario(scenario.title());
        let proven = match scenario {
            Scenario::OldAgents => Box::pin(version_skew::run(&mut report, builds, Build::New)).await,
            Scenario::NewAgents => Box::pin(version_skew::run(&mut report, builds, Build::Old)).await,
            Scenario::Single => Box::pin(single_plugin::run(&mut report, builds)).await,
            Scenario::Replicated => Box::pin(several_plugins::run(&mut report, builds)).await,
            Scenario::Refusal => Box::pin(newer_store::run(&mut report, builds)).await,
        };
        report.end(proven);
    }
    report
}
