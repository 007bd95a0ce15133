//! Words of the access log in `docs/api.md`.

use fiberlb_doc_tables::{check, code};

use crate::dataplane::EndReason;

#[test]
fn reasons_are_as_on_the_page() {
    let rows = EndReason::ALL.map(|reason| vec![code(reason.as_str()), reason.meaning().to_owned()]);
    check("api.md", "end-reasons", &["reason", "meaning"], |_| rows.into());
}
