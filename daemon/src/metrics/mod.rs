//! Metrics that all daemons have: of the process, of its build, and of the certificates in its settings.

mod certificates;
mod process;

use std::fmt;

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

pub use certificates::register_certificates;

/// Metrics of this process and its build, under the names that they have in all programs (`process_…`), and
/// `fiberlb_build_info`.
#[derive(Debug)]
pub struct ProcessMetrics(Registry);

impl ProcessMetrics {
    /// Metrics of a program of this version.
    #[must_use]
    pub fn new(version: &'static str) -> Self {
        let mut registry = Registry::default();
        process::register(&mut registry, version);
        Self(registry)
    }

    /// A scrape in OpenMetrics' text format: the program's own metrics, and these. No help has a full stop.
    ///
    /// # Errors
    /// A collector fails.
    pub fn encode(&self, own: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode_registry(&mut text, own)?;
        encode_registry(&mut text, &self.0)?;
        encode_eof(&mut text)?;
        Ok(without_stops(&text))
    }
}

/// Removes the full stop that the library puts behind the help of what is registered, and of nothing that is collected.
fn without_stops(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let is_help = line.starts_with("# HELP ");
        plain.push_str(if is_help { line.trim_end_matches('.') } else { line });
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    #[test]
    fn the_process_stands_behind_the_programs_own_and_no_help_has_a_stop() {
        let mut own = Registry::with_prefix("x");
        let open: Gauge = Gauge::default();
        own.register("open", "Open things", open);
        let text = ProcessMetrics::new("1.2.3").encode(&own).unwrap();
        assert!(text.starts_with("# HELP x_open Open things\n# TYPE x_open gauge\nx_open 0\n"), "{text}");
        assert!(text.contains("fiberlb_build_info{version=\"1.2.3\"} 1\n"), "{text}");
        assert!(text.ends_with("# EOF\n") && !text.contains(".\n"), "{text}");
    }
}
