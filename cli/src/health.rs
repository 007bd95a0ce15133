//! `health show`: health of one backend, by node.

use crate::client::Client;
use crate::failure::Failure;
use crate::kinds::BACKEND;
use crate::names::Names;
use crate::render::{Output, canonical, fleet};
use crate::resolve;
use crate::schema::internal;

/// Shows the health of the backend that `reference` names.
///
/// # Errors
/// Unknown or ambiguous name; refusal of the server; closed standard output.
pub(crate) async fn show(client: &Client, out: &mut Output, reference: &str) -> Result<(), Failure> {
    let backend = resolve::resource(client, &BACKEND, reference).await?;
    let message = client.backend_health(&backend.id()).await.map_err(|error| client.plain_failure(error))?;
    let text = match &out.format {
        format if format.is_for_people() => {
            let health = message.transcode_to().map_err(|error| internal(&error.to_string()))?;
            let names = Names::of(client, std::slice::from_ref(&backend)).await;
            let (reference, socket) = (names.reference(&backend), backend.show("address:port"));
            let shown =
                if reference.ends_with(&socket) { reference } else { format!("{reference} ({socket})") };
            fleet::health(&shown, &backend.state(), &health)
        }
        format => canonical::one(&message, format)?,
    };
    out.result(&text)
}
