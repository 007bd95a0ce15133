//! Metrics, in the OpenMetrics text format.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Page, one_sided, spans};

/// Head of a table of metrics.
const HEAD: [&str; 5] = ["metric", "type", "labels", "unit", "meaning"];

/// A family of metrics as a scrape shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Family {
    kind: String,
    help: String,
    unit: String,
    /// Names of the samples.
    samples: BTreeSet<String>,
    /// Names of the labels, without those that the type itself has.
    labels: BTreeSet<String>,
}

/// What the tables of metrics on a page say differently from `scrape`, and which names that begin with `prefix` stand in code
/// anywhere on it though no sample is called so. `others` are names that may: another program's.
///
/// Each family must have a sample, or nobody knows its labels. The meaning is the help of the metric, word by word. The unit of
/// a metric that has one is that one; of others it is what the page says.
pub fn metric_faults(page: &Page, scrape: &str, prefix: &str, others: &str) -> Vec<String> {
    let families = families(scrape);
    let rows = page.tables(&HEAD);
    let mut faults: Vec<String> =
        families.iter().flat_map(|(name, family)| family_faults(name, family)).collect();
    let known: BTreeSet<String> = families.iter().map(|(name, family)| row(name, family, &rows)).collect();
    let said = rows.iter().map(|row| format!("| {} |", row.join(" | "))).collect();
    faults.extend(one_sided(&known, &said));
    let names: BTreeSet<String> = families.values().flat_map(|it| it.samples.iter().cloned()).collect();
    let histograms = families.iter().filter(|(_, it)| it.kind == "histogram").map(|(name, _)| name.clone());
    let names: BTreeSet<String> = names.into_iter().chain(histograms).collect();
    let unknown = page.words(prefix).into_iter().filter(|word| !names.contains(word));
    let unknown = unknown.filter(|word| others.is_empty() || !word.starts_with(others));
    faults.extend(unknown.map(|word| format!("{word} is named and is not exported")));
    faults
}

/// The row that a family should have. What only people can say is taken from the page.
fn row(name: &str, family: &Family, rows: &[Vec<String>]) -> String {
    let name = if family.kind == "counter" { format!("{name}_total") } else { name.to_owned() };
    let name = format!("`{name}`");
    let said = rows.iter().find(|row| row.first() == Some(&name)).and_then(|row| row.get(3).cloned());
    let unit = if family.unit.is_empty() { said.unwrap_or_default() } else { family.unit.clone() };
    let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| {name} | {} | {} | {unit} | {} |", family.kind, labels.join(", "), family.help)
}

fn family_faults(name: &str, family: &Family) -> Vec<String> {
    let mut faults = Vec::new();
    if family.samples.is_empty() {
        faults.push(format!("{name} has no sample: let the test make one"));
    }
    if family.help.is_empty() {
        faults.push(format!("{name} has no help"));
    }
    faults
}

/// The families of a scrape.
fn families(scrape: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in scrape.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["#", what, name, words] => {
                (*name).clone_into(&mut current);
                let family = families.entry(current.clone()).or_default();
                match *what {
                    "HELP" => (*words).trim_end_matches('.').clone_into(&mut family.help),
                    "TYPE" => (*words).clone_into(&mut family.kind),
                    "UNIT" => (*words).clone_into(&mut family.unit),
                    _ => {}
                }
            }
            ["#", ..] => {}
            _ => {
                let family = families.entry(current.clone()).or_default();
                let (series, _) = line.rsplit_once(' ').unwrap_or((line, ""));
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                family.samples.insert(name.to_owned());
                let names = labels.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
                family.labels.extend(names.filter(|label| family.kind != "histogram" || label != "le"));
            }
        }
    }
    families
}

/// The values of a label that a page lists in a table with the head `label`, `values`; `None` if it does not.
#[must_use]
pub fn label_values(page: &Page, label: &str) -> Option<BTreeSet<String>> {
    let rows = page.tables(&["label", "values"]);
    let row = rows.iter().find(|row| row.first().is_some_and(|cell| spans(cell).contains(&label)))?;
    Some(spans(row.get(1)?).into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "\
# HELP p_writes Writes.
# TYPE p_writes counter
p_writes_total{code=\"O, K\",who=\"a=b\"} 1
# HELP p_wait_seconds Wait.
# TYPE p_wait_seconds histogram
# UNIT p_wait_seconds seconds
p_wait_seconds_bucket{le=\"1.0\"} 0
p_wait_seconds_sum 0
# HELP p_up Is up
# TYPE p_up gauge
p_up 1
# EOF
";
    const RIGHT: [&str; 3] = [
        "| `p_writes_total` | counter | `code`, `who` | writes | Writes |",
        "| `p_wait_seconds` | histogram | | seconds | Wait |",
        "| `p_up` | gauge | | 1 or 0 | Is up |",
    ];

    fn faults(rows: &[&str], scrape: &str) -> Vec<String> {
        let head = "| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n";
        let page = Page::of(&format!("{head}{}\n\n`p_q_other` `sum(p_wait_seconds_sum)`", rows.join("\n")));
        metric_faults(&page, scrape, "p_", "p_q_")
    }

    #[test]
    fn a_page_that_is_right_has_no_fault() {
        assert_eq!(faults(&RIGHT, SCRAPE), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_told() {
        let wrong = [
            "",
            "| `p_writes` | counter | `code`, `who` | writes | Writes |",
            "| `p_writes_total` | gauge | `code`, `who` | writes | Writes |",
            "| `p_writes_total` | counter | `code` | writes | Writes |",
            "| `p_writes_total` | counter | `code`, `who` | writes | Reads |",
        ];
        for line in wrong {
            assert!(!faults(&[line, RIGHT[1], RIGHT[2]], SCRAPE).is_empty(), "{line}");
        }
        let unit = RIGHT[1].replace("seconds |", "minutes |");
        assert!(!faults(&[RIGHT[0], &unit, RIGHT[2]], SCRAPE).is_empty());
        let extra = [&RIGHT[..], &["| `p_no` | gauge | | | No |"]].concat();
        assert!(!faults(&extra, SCRAPE).is_empty());
        let empty = SCRAPE.replace("p_up 1\n", "");
        assert!(faults(&RIGHT, &empty).iter().any(|fault| fault.contains("no sample")));
    }

    #[test]
    fn a_name_in_a_query_must_be_one_of_a_sample() {
        let found = faults(&[&RIGHT[..], &["", "`rate(p_wait_sum[1m])`"]].concat(), SCRAPE);
        assert_eq!(found, ["p_wait_sum is named and is not exported"]);
    }
}
