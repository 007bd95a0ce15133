//! Metrics, from the OpenMetrics text of a scrape.

use std::collections::BTreeSet;

use crate::{Row, code, sentence};

/// Rows of metric, type, labels and meaning, in the order of the scrape. The meaning is the help. Each family must have
/// a sample, or nothing tells its labels.
#[must_use]
pub fn metrics(scrape: &str) -> Vec<Row> {
    families(scrape)
        .map(|(family, kind, help, samples)| {
            let sample =
                samples.first().unwrap_or_else(|| panic!("{family} has no sample: let the test make one"));
            let name = if kind == "histogram" { family } else { name(sample) };
            let labels = samples.iter().filter_map(|sample| sample.split_once('{'));
            let labels =
                labels.flat_map(|(_, labels)| labels.split("\",").filter_map(|pair| pair.split_once('=')));
            let labels: BTreeSet<&str> =
                labels.map(|(label, _)| label).filter(|label| *label != "le").collect();
            let labels = labels.into_iter().map(code).collect::<Vec<_>>().join(", ");
            vec![code(name), kind.to_owned(), labels, sentence(help)]
        })
        .collect()
}

/// Names of series, and of histograms.
#[must_use]
pub fn sample_names(scrape: &str) -> BTreeSet<String> {
    let of = |(family, kind, _, samples): (&str, &str, &str, Vec<&str>)| {
        let histogram = (kind == "histogram").then(|| family.to_owned());
        samples.into_iter().map(|sample| name(sample).to_owned()).chain(histogram).collect::<Vec<_>>()
    };
    families(scrape).flat_map(of).collect()
}

/// Name, type, help and samples of each family.
fn families(scrape: &str) -> impl Iterator<Item = (&str, &str, &str, Vec<&str>)> {
    scrape.split("# HELP ").skip(1).map(|family| {
        let mut lines = family.lines();
        let (name, help) = lines.next().and_then(|line| line.split_once(' ')).expect("a help");
        let (_, kind) = lines.next().and_then(|line| line.rsplit_once(' ')).expect("a type");
        (name, kind, help, lines.filter(|line| !line.starts_with('#')).collect())
    })
}

fn name(sample: &str) -> &str {
    sample.split(['{', ' ']).next().unwrap_or_default()
}
