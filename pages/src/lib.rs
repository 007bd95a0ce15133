//! Compares the pages in `docs/` with the code, for tests: the code says what there is, and each function here answers with
//! what a page says differently, in words. It knows as much of Markdown as these pages use.

mod metrics;
mod options;
mod page;
mod settings;
mod written;

pub use metrics::{label_values, metric_faults};
pub use options::{command_faults, option_faults, spelled};
pub use page::{Page, Rows, only_span, spans};
pub use settings::{leaves, setting_faults, unknown_keys};
pub use written::{Written, read_faults};

use std::collections::BTreeSet;
use std::fmt::Display;

/// What stands on one side only, in words.
#[must_use]
pub fn one_sided<T: Ord + Display>(code: &BTreeSet<T>, page: &BTreeSet<T>) -> Vec<String> {
    let missing = code.difference(page).map(|it| format!("{it} is not on the page"));
    let extra = page.difference(code).map(|it| format!("{it} is on the page and does not exist"));
    missing.chain(extra).collect()
}
