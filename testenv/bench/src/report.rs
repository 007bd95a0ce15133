//! Figures, as lines that people and programs read.

use std::time::Duration;

use anyhow::Context as _;

/// Prints figures and counts those that missed their goal.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) missed: u32,
}

impl Report {
    pub(crate) fn at_least(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!(">={goal}"), value >= goal);
    }

    pub(crate) fn at_most(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!("<={goal}"), value <= goal);
    }

    pub(crate) fn below(&mut self, name: &str, value: f64, unit: &str, goal: f64) {
        self.line(name, value, unit, &format!("<{goal}"), value < goal);
    }

    /// A figure without a goal.
    pub(crate) fn shown(&self, name: &str, value: f64, unit: &str) {
        println!("FIGURE {name} {value:.3} {unit} goal none shown");
    }

    fn line(&mut self, name: &str, value: f64, unit: &str, goal: &str, met: bool) {
        self.missed += u32::from(!met);
        let unit = if unit.is_empty() { "ratio" } else { unit };
        println!("FIGURE {name} {value:.3} {unit} goal {goal} {}", if met { "met" } else { "missed" });
    }
}

/// The middle one of what some rounds gave.
pub(crate) fn median(mut values: Vec<f64>) -> anyhow::Result<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().context("there were no rounds")
}

/// Durations of which percentiles are taken, in milliseconds.
#[derive(Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// The time that so many of a hundred samples do not exceed.
    pub(crate) fn percentile(&self, of_hundred: usize) -> anyhow::Result<f64> {
        let mut sorted = self.0.clone();
        sorted.sort();
        let found = sorted.get((sorted.len() * of_hundred / 100).min(sorted.len().saturating_sub(1)));
        Ok(found.context("nothing was measured")?.as_secs_f64() * 1e3)
    }
}
