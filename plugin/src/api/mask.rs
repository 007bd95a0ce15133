//! Field masks (AIP-134): which fields an update takes from its request.

use prost_types::FieldMask;

use super::violations::Violations;

/// Meaning of an update's mask.
#[derive(Debug)]
pub(crate) enum Mask {
    /// Fields that are set.
    Set,
    /// All fields.
    All,
    /// Just these.
    Paths(Vec<String>),
}

impl Mask {
    /// Reads the mask of a request.
    pub(crate) fn of(mask: Option<FieldMask>) -> Self {
        match mask {
            None => Self::Set,
            Some(mask) if mask.paths.is_empty() => Self::Set,
            Some(mask) if mask.paths.iter().any(|path| path == "*") => Self::All,
            Some(mask) => Self::Paths(mask.paths),
        }
    }

    /// Returns true if an update takes `field`, which the request sets or not.
    pub(crate) fn takes(&self, field: &str, is_set: bool) -> bool {
        match self {
            Self::Set => is_set,
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|path| path == field),
        }
    }

    /// Rejects paths that name no field.
    pub(crate) fn check(&self, known: &[&str], violations: &mut Violations) {
        let Self::Paths(paths) = self else { return };
        for path in paths.iter().filter(|path| !known.contains(&path.as_str())) {
            let known = known.join(", ");
            violations
                .invalid("update_mask", format!("there is no field {path:?} to update; there are: {known}"));
        }
    }
}

/// Returns true if a field differs from its default.
pub(crate) fn is_set<T: Default + PartialEq>(field: &T) -> bool {
    *field != T::default()
}

/// Applies the fields that `mask` takes from `new` to `current`. Only the client's fields are named: `id` is
/// the identity, and server-side fields are never taken from a request.
macro_rules! overlay {
    ($current:ident, $new:ident, $mask:ident, $violations:ident, [$($field:ident),* $(,)?]) => {{
        // A field whose name is a Rust keyword is raw here, and plain on the wire.
        $mask.check(&[$(stringify!($field).trim_start_matches("r#")),*], $violations);
        $(
            if $mask.takes(stringify!($field).trim_start_matches("r#"), super::mask::is_set(&$new.$field)) {
                $current.$field = $new.$field;
            }
        )*
        $current
    }};
}
pub(crate) use overlay;
