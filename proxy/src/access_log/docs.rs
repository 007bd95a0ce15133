//! Words of the access log in `docs/api.md`.

use fiberlb_doc_tables::{check, code};

use crate::dataplane::{ConnectFailure, EndReason};

#[test]
fn reasons_are_as_on_the_page() {
    let rows = EndReason::ALL.map(|reason| vec![code(reason.as_str()), reason.meaning().to_owned()]);
    check("api.md", "end-reasons", &["reason", "meaning"], |_| rows.into());
}

#[test]
fn reasons_of_failed_attempts_are_as_on_the_page() {
    let row = |failure: ConnectFailure| vec![code(failure.as_str()), failure.meaning().to_owned()];
    check("api.md", "connect-failures", &["reason", "meaning"], |_| ConnectFailure::ALL.map(row).into());
}
