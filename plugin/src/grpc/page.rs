//! Compares the tables of codes in `docs/api.md` with this program.

use std::collections::BTreeSet;

use fiberlb_pages::{Page, one_sided, only_span};

use crate::api::ErrorReason;
use crate::status::StatusCode;

fn column(head: &[&str]) -> BTreeSet<String> {
    let page = Page::read("api.md").unwrap();
    let cells = page.tables(head).into_iter().map(|row| row[0].clone());
    cells.map(|cell| only_span(&cell).expect("one code span").to_owned()).collect()
}

#[test]
fn each_reason_of_an_error_is_there() {
    let page = Page::read("api.md").unwrap();
    let shown: BTreeSet<String> = page
        .tables(&["reason", "code", "when"])
        .into_iter()
        .map(|row| format!("{} {}", row[0], row[1]))
        .collect();
    let reason = |reason: &ErrorReason| format!("`{reason}` {}", reason.kind().as_str());
    let known: BTreeSet<String> = ErrorReason::ALL.iter().map(reason).collect();
    assert_eq!(one_sided(&known, &shown), Vec::<String>::new());
}

#[test]
fn each_code_of_a_status_is_there() {
    let known = StatusCode::ALL.iter().map(|code| code.as_str().to_owned()).filter(|code| !code.is_empty());
    assert_eq!(one_sided(&known.collect(), &column(&["code", "what it means"])), Vec::<String>::new());
}
