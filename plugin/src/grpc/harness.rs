//! Requests out of any bytes, for [`crate::fuzzing`].

use fiberlb_proto::v1;
use prost::Message as _;
use prost_types::FieldMask;

use super::mask::{Mask, overlay};
use super::tree::apply_request;
use super::wire::{Wire, given};
use crate::resources::Violations;

/// Reads the message that `choice` names: a whole tree, or a resource as a create and an update take it.
pub(crate) fn read(choice: u8, bytes: &[u8]) {
    match choice % 6 {
        0 => drop(apply_request(v1::ApplyLoadBalancerRequest::decode(bytes).unwrap_or_default())),
        1 => resource::<v1::LoadBalancer>(bytes),
        2 => resource::<v1::Listener>(bytes),
        3 => resource::<v1::Pool>(bytes),
        4 => resource::<v1::Backend>(bytes),
        _ => resource::<v1::HealthCheck>(bytes),
    }
}

fn resource<W: Wire>(bytes: &[u8]) {
    let wire = W::decode(bytes).unwrap_or_default();
    let mut violations = Violations::default();
    let _ = given(&wire, &mut violations);
    let paths = vec!["*".to_owned(), String::from_utf8_lossy(bytes).into_owned()];
    for mask in [None, Some(FieldMask { paths })] {
        let _ = overlay(W::default(), &wire, &Mask::of(mask), &mut violations);
    }
}
