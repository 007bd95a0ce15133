//! Tables of codes in `docs/api.md`.

use fiberlb_doc_tables::{check, code, sentence};

use crate::api::ErrorReason;
use crate::status::StatusCode;

#[test]
fn reasons_of_errors_are_as_on_the_page() {
    let row = |(reason, doc): (&ErrorReason, &&str)| {
        vec![code(reason.as_str()), reason.kind().as_str().to_owned(), sentence(doc)]
    };
    let rows = ErrorReason::ALL.iter().zip(ErrorReason::DOCS).map(row).collect();
    check("api.md", "reasons", &["reason", "code", "when"], |_| rows);
}

#[test]
fn codes_of_statuses_are_as_on_the_page() {
    let row = |(status, doc): (&StatusCode, &&str)| vec![code(status.as_str()), sentence(doc)];
    let rows = StatusCode::ALL.iter().zip(StatusCode::DOCS).map(row).skip(1).collect();
    check("api.md", "status-codes", &["code", "what it means"], |_| rows);
}
