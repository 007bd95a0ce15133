//! `ovn verify`: what OVN holds, beside what it should.

use fiberlb_proto::v1::{OvnDifferenceKind, VerifyOvnResponse};

use crate::args::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{Output, canonical, ovn};
use crate::schema::internal;

/// Compares, and shows what differs.
///
/// # Errors
/// Something differs; the server refuses; nobody reads on.
pub(crate) async fn verify(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let answer = client.call("OvnService", "VerifyOvn", |_| Ok(())).await;
    let answer = answer.map_err(|error| client.plain_failure(error))?;
    let found: VerifyOvnResponse = answer.transcode_to().map_err(|error| internal(&error.to_string()))?;
    let text = match out.format {
        Format::Table => ovn::differences(&found),
        format => canonical::one(&answer, format)?,
    };
    out.result(&text)?;
    if found.total == 0 { Ok(()) } else { Err(Failure::error(in_words(&found))) }
}

fn in_words(found: &VerifyOvnResponse) -> String {
    let blocked = found.differences.iter().filter(|it| it.kind() == OvnDifferenceKind::Blocked).count();
    let what = if found.waiting > 0 {
        format!("{} load balancers and networks wait to be carried out: look again", found.waiting)
    } else if blocked == found.differences.len() {
        "what is blocked is tried again by itself; the reasons say what stands in the way".to_owned()
    } else {
        "FiberLB puts its own rows right by itself: look at the plugin's log if they stay".to_owned()
    };
    format!("{} differences; {what}", found.total)
}
