//! Messages of resources: parsed into what the use cases take, rendered from what they answer.

use fiberlb_proto::v1::{self, watch_event};
use uuid::Uuid;

use super::form;
use super::mask::{Mask, overlay};
use super::state::state;
use crate::api::{ApiKind, Observed, Patch, ResourceDraft};
use crate::resources::{Form, Violations};

/// Message of a kind of resource, as far as all are alike: `service!` implements it.
pub(super) trait KindMessage:
    prost::Message + Default + Clone + PartialEq + Send + Sync + 'static
{
    /// Full name of the message.
    const NAME: &'static str;

    /// The id.
    fn id(&self) -> &str;
    /// The message with the id and the state of a stored resource.
    fn stored(self, id: Uuid, state: v1::ResourceState) -> Self;
    /// Message in an event of a watch.
    fn event(self) -> watch_event::Resource;
}

/// Message of a kind of resource.
pub(super) trait Wire: KindMessage {
    /// The kind.
    type Kind: ApiKind;
    /// Fields of the server's.
    const OUTPUT: &'static [&'static str] = &["state"];

    /// Reads the client's fields.
    fn draft(&self, form: &mut Form<'_>) -> <Self::Kind as ApiKind>::Draft;
    /// Message of a specification: the client's fields.
    fn of(spec: &Self::Kind) -> Self;
    /// Message of a resource.
    fn rendered(observed: &Observed<Self::Kind>) -> Self {
        Self::of(&observed.record.spec).stored(observed.record.id, state(observed))
    }
}

/// A resource that comes alone in a request.
pub(super) fn given<W: Wire>(wire: &W, violations: &mut Violations) -> ResourceDraft<W::Kind> {
    let mut form = Form::new("", violations);
    let id = form::optional_uuid(&mut form, "id", wire.id());
    ResourceDraft::alone(id, wire.draft(&mut form))
}

/// A change of a resource by an update call.
pub(super) fn patch<W: Wire>(wire: W, mask: Mask) -> impl Patch<W::Kind> {
    move |current: &W::Kind, violations: &mut Violations| {
        let wanted = overlay(W::of(current), &wire, &mask, violations);
        wanted.draft(&mut Form::new("", violations))
    }
}

/// Digest of a create call's content, to recognise a repeated call.
pub(super) fn digest<W: Wire>(wire: &W) -> String {
    Uuid::new_v5(&Uuid::nil(), &wire.encode_to_vec()).to_string()
}
