//! Claims of the scenarios: printed as each is proven or refuted, and as a table at the end.

use std::fmt;
use std::time::Instant;

use anyhow::{Context as _, Error, Result};

/// Outcome of one claim.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    scenario: &'static str,
    text: String,
    outcome: Result<String, String>,
}

/// All claims so far.
#[derive(Debug)]
pub(crate) struct Report {
    began: Instant,
    scenario: &'static str,
    claims: Vec<Claim>,
}

impl Default for Report {
    fn default() -> Self {
        Self { began: Instant::now(), scenario: "", claims: Vec::new() }
    }
}

impl Report {
    /// Begins the claims of a scenario.
    pub(crate) fn scenario(&mut self, name: &'static str) {
        println!("\n== {name}");
        self.scenario = name;
    }

    /// Notes and prints the outcome of a claim: what was measured, or why it does not hold.
    ///
    /// # Errors
    /// It does not hold: what follows in the scenario builds on it.
    pub(crate) fn claim(&mut self, text: &str, outcome: Result<String>) -> Result<()> {
        let at = self.began.elapsed().as_secs_f64();
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        match &outcome {
            Ok(measured) => println!("{at:7.1} s  ok      {text}{}", detail(measured)),
            Err(why) => println!("{at:7.1} s  FAILED  {text}: {why}"),
        }
        let held = outcome.as_ref().map(drop).map_err(|why| Error::msg(why.clone()));
        self.claims.push(Claim { scenario: self.scenario, text: text.to_owned(), outcome });
        held
    }

    /// Notes a claim whose proof is that something could be made; gives that.
    ///
    /// # Errors
    /// It could not.
    pub(crate) fn opened<T>(&mut self, claim: &str, made: Result<T>) -> Result<T> {
        let (made, outcome) = match made {
            Ok(made) => (Some(made), Ok(String::new())),
            Err(error) => (None, Err(error)),
        };
        self.claim(claim, outcome)?;
        made.with_context(|| claim.to_owned())
    }

    /// Notes how the scenario ended. A failure between claims, or at the end, is one of a claim of its own.
    pub(crate) fn end(&mut self, ended: Result<()>) {
        let mut claims = self.claims.iter().filter(|claim| claim.scenario == self.scenario);
        if ended.is_err() && claims.all(|claim| claim.outcome.is_ok()) {
            // It is in the report, which is all that there is to do with it.
            let _ = self.claim("the scenario comes to its end", ended.map(|()| String::new()));
        }
    }

    /// True if claims were made, and all hold.
    #[must_use]
    pub(crate) fn all_hold(&self) -> bool {
        !self.claims.is_empty() && self.claims.iter().all(|claim| claim.outcome.is_ok())
    }
}

fn detail(measured: &str) -> String {
    if measured.is_empty() { String::new() } else { format!(": {measured}") }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scenario = "";
        for claim in &self.claims {
            if claim.scenario != scenario {
                scenario = claim.scenario;
                writeln!(f, "{scenario}")?;
            }
            let verdict = if claim.outcome.is_ok() { "proven" } else { "FAILED" };
            writeln!(f, "  {verdict}  {}", claim.text)?;
            if let Err(why) = &claim.outcome {
                writeln!(f, "          {}", why.lines().next().unwrap_or_default())?;
            }
        }
        let failed = self.claims.iter().filter(|claim| claim.outcome.is_err()).count();
        match failed {
            0 => write!(f, "{} claims, all proven", self.claims.len()),
            _ => write!(
                f,
                "{} claims, {failed} FAILED: what follows them in their scenarios was not tried",
                self.claims.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_outside_of_claims_fails_the_report() {
        let mut report = Report::default();
        report.scenario("first");
        report.claim("it works", Ok(String::new())).unwrap();
        report.end(Err(Error::msg("a daemon aborted")));
        assert!(!report.all_hold() && report.to_string().contains("a daemon aborted"));
    }

    #[test]
    fn one_claim_that_fails_fails_the_report_and_is_in_its_table() {
        let mut report = Report::default();
        assert!(!report.all_hold(), "nothing proven is no success");
        report.scenario("first");
        report.claim("it works", Ok("7 s".to_owned())).unwrap();
        assert!(report.all_hold());
        report.claim("it goes on", Err(Error::msg("it stopped"))).unwrap_err();
        assert!(!report.all_hold());
        report.end(Err(Error::msg("it stopped")));
        assert_eq!(report.claims.len(), 2, "that failure is there already");
        let table = report.to_string();
        assert!(table.contains("proven  it works") && table.contains("FAILED  it goes on\n"), "{table}");
        assert!(table.contains("it stopped") && table.ends_with("not tried"), "{table}");
    }
}
