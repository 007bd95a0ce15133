//! `diff`: changes that `apply` would make.

use crate::apply::changes_of;
use crate::changes::of_resource;
use crate::client::Client;
use crate::document::{Document, Placed};
use crate::failure::{Exit, Failure};
use crate::render::Output;
use crate::resource::Resource;

/// Shows what applying the documents would change.
///
/// # Errors
/// [`Exit::Different`] if it would change something; refusal of the server.
pub(crate) async fn run(client: &Client, out: &mut Output, documents: Vec<Placed>) -> Result<(), Failure> {
    let mut changes = Vec::new();
    let count = documents.len();
    for Placed { place, document } in documents {
        let about = |failure: Failure| if count > 1 { failure.about(&place) } else { failure };
        changes.extend(match document {
            Document::Tree(tree) => changes_of(client, tree).await.map_err(about)?,
            Document::Resource(kind, message, fields) => {
                let wanted = Resource { kind, message };
                let current = match client.get(kind, &wanted.id()).await {
                    Ok(current) => Some(current),
                    Err(error) if error.is_not_found() => None,
                    Err(error) => return Err(client.plain_failure(error)),
                };
                of_resource(current.as_ref(), &wanted, &fields)
            }
        });
    }
    out.changes(&changes)?;
    if changes.is_empty() { Ok(()) } else { Err(Failure { exit: Exit::Different, lines: Vec::new() }) }
}
