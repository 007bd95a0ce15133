//! `ovn verify`: comparison of OVN with the desired state.

use fiberlb_proto::v1::{OvnDifferenceKind, VerifyOvnResponse};

use crate::client::Client;
use crate::failure::Failure;
use crate::names::Names;
use crate::render::{Output, canonical, ovn};
use crate::schema::internal;

/// Compares, and shows the differences.
///
/// # Errors
/// Differences; refusal of the server; closed standard output.
pub(crate) async fn verify(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let answer = client.call("OvnService", "VerifyOvn", |_| Ok(())).await;
    let answer = answer.map_err(|error| client.plain_failure(error))?;
    let found: VerifyOvnResponse = answer.transcode_to().map_err(|error| internal(&error.to_string()))?;
    let text = match &out.format {
        format if format.is_for_people() => {
            let ids = found.differences.iter().map(|it| it.load_balancer_id.clone());
            let ids = ids.filter(|id| !id.is_empty()).collect();
            ovn::differences(&found, &Names::of_load_balancers(client, ids).await)
        }
        format => canonical::whole(&answer, format)?,
    };
    out.result(&text)?;
    if found.total == 0 { Ok(()) } else { Err(Failure::error(summary(&found))) }
}

fn summary(found: &VerifyOvnResponse) -> String {
    let blocked = found.differences.iter().filter(|it| it.kind() == OvnDifferenceKind::Blocked).count();
    let what = if found.waiting > 0 {
        format!("{} load balancers and networks are pending: run the command again", found.waiting)
    } else if blocked == found.differences.len() {
        "blocked changes are retried automatically: see their details".to_owned()
    } else {
        "FiberLB repairs its own rows automatically: see the plugin's log if the differences persist"
            .to_owned()
    };
    format!("{} differences; {what}", found.total)
}
