//! Field masks (AIP-134): which fields an update takes from its request. Fields come from the message's descriptor.

use prost::Message as _;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};
use prost_types::FieldMask;

use super::descriptors;
use super::wire::Wire;
use crate::resources::{Form, Quoted, Resource as _, Violations};

/// Violation of a request whose fields cannot be taken; a test rules it out for what decodes as its message.
const UNREADABLE: &str = "the fields of the request cannot be read";

/// Most paths of a mask: several times the fields of the largest kind.
const MOST_PATHS: usize = 100;

/// Meaning of an update's mask.
#[derive(Debug)]
pub(super) enum Mask {
    /// Fields that are set.
    Set,
    /// All fields, with the other paths of the mask.
    All(Vec<String>),
    /// Just these.
    Paths(Vec<String>),
}

impl Mask {
    /// Reads the mask of a request.
    pub(super) fn of(mask: Option<FieldMask>) -> Self {
        match mask {
            None => Self::Set,
            Some(mask) if mask.paths.is_empty() => Self::Set,
            Some(mask) if mask.paths.iter().any(|path| path == "*") => {
                Self::All(mask.paths.into_iter().filter(|path| path != "*").collect())
            }
            Some(mask) => Self::Paths(mask.paths),
        }
    }

    /// Returns true if an update takes `field`, which the request sets or not.
    fn takes(&self, field: &str, is_set: bool) -> bool {
        match self {
            Self::Set => is_set,
            Self::All(_) => true,
            Self::Paths(paths) => paths.iter().any(|path| path == field),
        }
    }

    /// Rejects paths that name no field.
    fn check(&self, known: &[FieldDescriptor], violations: &mut Violations) {
        let (Self::Paths(paths) | Self::All(paths)) = self else { return };
        if paths.len() > MOST_PATHS {
            let why = format!("at most {MOST_PATHS} paths, given {}", paths.len());
            return Form::new("", violations).invalid("update_mask", why);
        }
        for path in paths.iter().filter(|path| !known.iter().any(|field| field.name() == path.as_str())) {
            let known = known.iter().map(FieldDescriptor::name).collect::<Vec<_>>().join(", ");
            let why = format!("there is no field {} to update; there are: {known}", Quoted(path));
            Form::new("", violations).invalid("update_mask", why);
        }
    }
}

/// The fields that `mask` takes from `new`, over `current`. Only the client's fields are taken: `id` is the
/// identity, and fields of the server's are never read from a request. One that cannot be changed keeps its value
/// under `*` where the request leaves it out.
pub(super) fn overlay<W: Wire>(current: W, new: &W, mask: &Mask, violations: &mut Violations) -> W {
    let Some(descriptor) = descriptor::<W>() else {
        Form::new("", violations).invalid("update_mask", UNREADABLE);
        return current;
    };
    let fields = client_fields::<W>(&descriptor);
    mask.check(&fields, violations);
    let read = |message: &W| DynamicMessage::decode(descriptor.clone(), message.encode_to_vec().as_slice());
    let (Ok(mut into), Ok(from)) = (read(&current), read(new)) else {
        Form::new("", violations).invalid("update_mask", UNREADABLE);
        return current;
    };
    for field in fields {
        let is_set = from.has_field(&field);
        if !mask.takes(field.name(), is_set) {
            continue;
        }
        if is_set {
            into.set_field(&field, from.get_field(&field).into_owned());
        } else if !matches!(mask, Mask::All(_)) || !W::Kind::IMMUTABLE.contains(&field.name()) {
            into.clear_field(&field);
        }
    }
    W::decode(into.encode_to_vec().as_slice()).unwrap_or(current)
}

fn descriptor<W: Wire>() -> Option<MessageDescriptor> {
    descriptors::descriptor(W::NAME)
}

/// Fields that a client can set, in the order of their declaration.
fn client_fields<W: Wire>(descriptor: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let is_own = |field: &FieldDescriptor| field.name() != "id" && !W::OUTPUT.contains(&field.name());
    descriptor.fields().filter(is_own).collect()
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1;

    use super::*;

    fn paths(paths: &[&str]) -> Mask {
        Mask::of(Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }))
    }

    fn names<W: Wire>() -> Vec<String> {
        let descriptor = descriptor::<W>().expect(W::NAME);
        let fields: Vec<String> =
            client_fields::<W>(&descriptor).iter().map(|field| field.name().to_owned()).collect();
        let all: Vec<String> = descriptor.fields().map(|field| field.name().to_owned()).collect();
        assert!(W::OUTPUT.iter().all(|output| all.contains(&(*output).to_owned())), "{:?}", W::OUTPUT);
        fields
    }

    #[test]
    fn every_kind_has_its_fields_from_its_descriptor() {
        assert!(names::<v1::LoadBalancer>().contains(&"additional_vips".to_owned()));
        assert!(names::<v1::Listener>().contains(&"default_pool_id".to_owned()));
        assert!(!names::<v1::Listener>().iter().any(|name| name.starts_with("datapath_")));
        assert!(names::<v1::Pool>().contains(&"session_persistence".to_owned()));
        assert!(!names::<v1::Backend>().contains(&"id".to_owned()));
        assert!(names::<v1::HealthCheck>().contains(&"type".to_owned()));
    }

    #[test]
    fn a_mask_says_which_fields_are_taken() {
        let current = v1::Backend {
            id: "1".to_owned(),
            name: "old".to_owned(),
            weight: Some(5),
            port: 80,
            ..Default::default()
        };
        let new = v1::Backend {
            id: "2".to_owned(),
            name: String::new(),
            weight: Some(0),
            state: Some(v1::ResourceState::default()),
            ..Default::default()
        };
        let apply = |mask: &Mask| {
            let mut violations = Violations::default();
            let after = overlay(current.clone(), &new, mask, &mut violations);
            assert!(violations.is_empty());
            assert_eq!((after.id.as_str(), &after.state), ("1", &None), "never from a request");
            (after.name, after.weight, after.port)
        };
        assert_eq!(apply(&Mask::of(None)), ("old".to_owned(), Some(0), 80), "what is set");
        assert_eq!(apply(&paths(&["*"])), (String::new(), Some(0), 80), "all that can be changed");
        assert_eq!(apply(&paths(&["name"])), (String::new(), Some(5), 80), "what is named");
    }

    #[test]
    fn a_path_that_names_no_field_is_refused_with_those_that_there_are() {
        for (path, all) in
            ["nothing", "id", "state", "state.reason", ""].into_iter().zip([false, true].into_iter().cycle())
        {
            let mut violations = Violations::default();
            let mask = paths(&[path, if all { "*" } else { "name" }]);
            overlay(v1::Pool::default(), &v1::Pool::default(), &mask, &mut violations);
            let found = violations.into_vec();
            assert_eq!(found.len(), 1, "{path}");
            assert!(found[0].description.contains("there are: load_balancer_id, name"), "{found:?}");
        }
    }

    #[test]
    fn a_mask_is_not_longer_than_any_kind_needs() {
        let mut violations = Violations::default();
        let mask = Mask::of(Some(FieldMask { paths: vec![String::new(); 1_000_000] }));
        overlay(v1::Pool::default(), &v1::Pool::default(), &mask, &mut violations);
        let found = violations.into_vec();
        assert_eq!(found[0].description, "at most 100 paths, given 1000000");
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn fields_that_cannot_be_changed_are_fields() {
        fn check<W: Wire>() {
            let names = names::<W>();
            let unknown = W::Kind::IMMUTABLE.iter().find(|field| !names.contains(&(**field).to_owned()));
            assert_eq!(unknown, None, "{}", W::NAME);
        }
        check::<v1::LoadBalancer>();
        check::<v1::Listener>();
        check::<v1::Pool>();
        check::<v1::Backend>();
        check::<v1::HealthCheck>();
    }
}
