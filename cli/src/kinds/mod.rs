//! Kinds of resources, as tables: their words on the command line, flags and columns. Everything else is generic over these tables and
//! the API's descriptors.

mod backend;
mod health_check;
mod listener;
mod load_balancer;
mod pool;

pub(crate) use backend::BACKEND;
pub(crate) use health_check::HEALTH_CHECK;
pub(crate) use listener::LISTENER;
pub(crate) use load_balancer::LOAD_BALANCER;
pub(crate) use pool::POOL;

/// All kinds, parents first.
pub(crate) static ALL: [&Kind; 5] = [&LOAD_BALANCER, &LISTENER, &POOL, &BACKEND, &HEALTH_CHECK];

/// Output-only fields of resources.
pub(crate) const OUTPUT_ONLY: [&str; 5] =
    ["state", "network_name", "datapath_in_force", "datapath_reason", "proxy_node_ids"];

/// Kind of resource.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Command.
    pub(crate) command: &'static str,
    /// Shorter command, or the one of Octavia.
    pub(crate) short: Option<&'static str>,
    /// Hidden aliases of the command.
    pub(crate) aliases: &'static [&'static str],
    /// Name for people, singular.
    pub(crate) label: &'static str,
    /// Message in `fiberlb.v1`, after which the service and its methods are named.
    pub(crate) message: &'static str,
    /// Field in requests and events. `<field>_id` refers to a resource of this kind.
    pub(crate) field: &'static str,
    /// Field in the responses of List.
    pub(crate) plural: &'static str,
    /// Kind of the parent.
    pub(crate) parent: Option<&'static Kind>,
    /// True if Delete has a field `cascade`.
    pub(crate) cascade: bool,
    /// Help of the command, one line.
    pub(crate) about: &'static str,
    /// Forms of a reference, for help.
    pub(crate) reference: &'static str,
    /// Fields that a client may set, except for `id`, the parent and `admin_state_up`, which are the same for all.
    pub(crate) fields: &'static [Field],
    /// Columns of the list, except for those that all have.
    pub(crate) columns: &'static [Column],
    /// Further columns of the wide list.
    pub(crate) wide: &'static [Column],
    /// Examples for help.
    pub(crate) examples: Examples,
}

impl Kind {
    /// Kind that a word of the command line means.
    pub(crate) fn of_word(word: &str) -> Option<&'static Self> {
        let is_meant =
            |kind: &&Self| kind.command == word || kind.short == Some(word) || kind.aliases.contains(&word);
        ALL.into_iter().find(is_meant)
    }

    /// Name of the method for "Create", "Get", "List", "Update" or "Delete".
    pub(crate) fn method(&self, verb: &str) -> String {
        if verb == "List" {
            format!("{verb}{}", camel_case(self.plural))
        } else {
            format!("{verb}{}", self.message)
        }
    }

    /// Name of the service.
    pub(crate) fn service(&self) -> String {
        format!("{}Service", self.message)
    }

    /// Field by which other kinds refer to this one.
    pub(crate) fn id_field(&self) -> String {
        format!("{}_id", self.field)
    }

    /// Flag by which other kinds refer to this one, without dashes.
    pub(crate) fn flag(&self) -> String {
        self.field.replace('_', "-")
    }
}

/// Converts `l7_policies` to `L7Policies`.
fn camel_case(field: &str) -> String {
    let capitalized = |word: &str| {
        let (first, rest) = word.split_at_checked(1).unwrap_or((word, ""));
        first.to_ascii_uppercase() + rest
    };
    field.split('_').map(capitalized).collect()
}

/// Examples shown by `--help`.
#[derive(Debug)]
pub(crate) struct Examples {
    /// Examples of `create`.
    pub(crate) create: &'static str,
    /// Examples of `update`.
    pub(crate) update: &'static str,
}

/// Field that a client may set.
#[derive(Debug)]
pub(crate) struct Field {
    /// Flag, without dashes.
    pub(crate) flag: &'static str,
    /// Dotted path in the message.
    pub(crate) path: &'static str,
    /// Parser of the flag.
    pub(crate) shape: Shape,
    /// Verbs that accept the flag.
    pub(crate) when: Settable,
    /// Field that is reset where this one is set; empty: none is.
    pub(crate) in_place_of: &'static str,
    /// Help; empty: the field's comment in the `.proto` file.
    pub(crate) help: &'static str,
}

/// Parser of a flag, where the descriptor does not determine it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// Parser of the field's type.
    Plain,
    /// Reference to another resource of the same load balancer.
    Reference(&'static Kind),
    /// Other resources of the same load balancer with weights, such as `blue=90`.
    Weighted(&'static Kind),
    /// Second VIP.
    Vip,
    /// Names of the boolean fields that are true in a message of such.
    Switches,
}

/// Verbs that accept a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settable {
    /// Create, which requires it; immutable afterwards.
    Required,
    /// Create only.
    Create,
    /// Create and update.
    Always,
}

/// Column of a list.
#[derive(Debug)]
pub(crate) struct Column {
    /// Heading.
    pub(crate) heading: &'static str,
    /// Paths of the fields to show, as [`Resource::show`](crate::resource::Resource::show) takes them.
    pub(crate) path: &'static str,
}

/// A field with the flag of its own name and type, which may always be set.
const fn field(flag: &'static str, path: &'static str) -> Field {
    Field { flag, path, shape: Shape::Plain, when: Settable::Always, in_place_of: "", help: "" }
}

impl Field {
    /// The same field, accepted by create only.
    const fn at_create(mut self) -> Self {
        self.when = Settable::Create;
        self
    }

    /// The same field, required by create.
    const fn required(mut self) -> Self {
        self.when = Settable::Required;
        self
    }

    /// The same field, which another one gives way to.
    const fn in_place_of(mut self, path: &'static str) -> Self {
        self.in_place_of = path;
        self
    }

    /// The same field, with a help of its own.
    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    /// The same field, read as `shape` says.
    const fn read_as(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }
}

/// `name`, which all have.
const NAME: Field = field("name", "name").help("Name, at most 255 characters; need not be unique");
/// `description`.
const DESCRIPTION: Field = field("description", "description").help("Description, at most 255 characters");
/// `tags`, which all have.
const TAGS: Field =
    field("tag", "tags").help("Tag; repeat for several. In an update the given ones replace all");

/// Column with a heading and a path.
const fn column(heading: &'static str, path: &'static str) -> Column {
    Column { heading, path }
}

#[cfg(test)]
mod tests {
    use prost_reflect::MessageDescriptor;

    use super::*;
    use crate::schema::{Schema, comment, field_at, is_duration};

    fn leaves(message: &MessageDescriptor, prefix: &str, out: &mut Vec<String>) {
        for field in message.fields() {
            let path = format!("{prefix}{}", field.name());
            match field.kind().as_message() {
                Some(inner) if !field.is_list() && !is_duration(&field.kind()) => {
                    leaves(inner, &format!("{path}."), out);
                }
                _ => out.push(path),
            }
        }
    }

    fn is_covered(kind: &Kind, path: &str) -> bool {
        let general = ["id".to_owned(), "admin_state_up".to_owned()];
        let parent = kind.parent.map(Kind::id_field);
        general.iter().chain(&parent).any(|known| known == path)
            || OUTPUT_ONLY.iter().any(|output| path.split('.').next() == Some(output))
            || kind.fields.iter().any(|field| match field.shape {
                Shape::Switches => path.starts_with(field.path),
                _ => field.path == path,
            })
    }

    #[test]
    fn a_field_is_named_in_methods_in_camel_case() {
        let names = ["pools", "health_checks", "l7_policies", ""].map(camel_case);
        assert_eq!(names, ["Pools", "HealthChecks", "L7Policies", ""]);
    }

    #[test]
    fn every_settable_field_has_a_flag() {
        let schema = Schema::load().unwrap();
        for kind in ALL {
            let mut paths = Vec::new();
            leaves(&schema.message(kind.message).unwrap(), "", &mut paths);
            for path in paths {
                assert!(is_covered(kind, &path), "{}: no flag sets {path}", kind.message);
            }
        }
    }

    #[test]
    fn no_example_shows_what_is_not_supported_yet() {
        for kind in ALL {
            let message = Schema::load().unwrap().message(kind.message).unwrap();
            let text = |field: &Field| comment(&field_at(&message, field.path).unwrap()).1;
            let refused = kind.fields.iter().filter(|field| text(field).ends_with("Not supported yet"));
            for field in refused {
                let typed = [kind.examples.create, kind.examples.update];
                let shown = |example: &&str| {
                    example.contains(&format!("--{} ", field.flag))
                        || example.contains(&format!("clear {}", field.flag))
                };
                assert!(!typed.iter().any(shown), "{}: --{} in an example", kind.label, field.flag);
            }
        }
    }

    #[test]
    fn tables_and_api_agree() {
        let schema = Schema::load().unwrap();
        for kind in ALL {
            let message = schema.message(kind.message).unwrap();
            for path in kind.fields.iter().map(|field| field.path) {
                assert!(field_at(&message, path).is_some(), "{}: no field {path}", kind.message);
            }
            for verb in ["Create", "Get", "List", "Update", "Delete"] {
                let method = schema.method(&kind.service(), &kind.method(verb)).unwrap();
                assert_eq!(
                    verb == "Delete" && kind.cascade,
                    method.input().get_field_by_name("cascade").is_some()
                );
            }
        }
    }
}
