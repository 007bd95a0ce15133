//! What this program knows of each resource, as tables: its words on the command line, its flags, its columns. All that
//! is done with resources is written once, over these tables and the API's descriptors.

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

/// All resources, parents first.
pub(crate) static ALL: [&Kind; 5] = [&LOAD_BALANCER, &LISTENER, &POOL, &BACKEND, &HEALTH_CHECK];

/// Fields of resources that only the server sets.
pub(crate) const OUTPUT_ONLY: [&str; 4] = ["state", "datapath_in_force", "datapath_reason", "proxy_node_ids"];

/// One kind of resource.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Its word on the command line.
    pub(crate) command: &'static str,
    /// A shorter word for it, or the one that Octavia's users know.
    pub(crate) short: Option<&'static str>,
    /// Other words that are understood.
    pub(crate) aliases: &'static [&'static str],
    /// What a person calls it.
    pub(crate) label: &'static str,
    /// Its message in `fiberlb.v1`; its service and methods are named after it.
    pub(crate) message: &'static str,
    /// Its field in requests and events. `<field>_id` refers to it.
    pub(crate) field: &'static str,
    /// Its field in the answers of its List.
    pub(crate) plural: &'static str,
    /// What it belongs to.
    pub(crate) parent: Option<&'static Kind>,
    /// Whether its Delete takes `cascade`.
    pub(crate) cascade: bool,
    /// One line of help.
    pub(crate) about: &'static str,
    /// How one is referred to, for help.
    pub(crate) reference: &'static str,
    /// What a client may set, `id`, the parent and `admin_state_up` excepted: those are the same for all.
    pub(crate) fields: &'static [Field],
    /// Columns of its list, those of its status excepted.
    pub(crate) columns: &'static [Column],
    /// Examples for help, a verb each.
    pub(crate) examples: Examples,
}

impl Kind {
    /// The name of one of its methods: "Create", "Get", "List", "Update" or "Delete".
    pub(crate) fn method(&self, verb: &str) -> String {
        if verb == "List" {
            format!("{verb}{}", camel_case(self.plural))
        } else {
            format!("{verb}{}", self.message)
        }
    }

    /// The name of its service.
    pub(crate) fn service(&self) -> String {
        format!("{}Service", self.message)
    }

    /// The field by which others refer to it.
    pub(crate) fn id_field(&self) -> String {
        format!("{}_id", self.field)
    }

    /// The flag by which others refer to it, without dashes.
    pub(crate) fn flag(&self) -> String {
        self.field.replace('_', "-")
    }
}

/// `l7_policies` as `L7Policies`.
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
    /// Of `create`.
    pub(crate) create: &'static str,
    /// Of `update`.
    pub(crate) update: &'static str,
}

/// One field that a client may set.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its flag, without dashes.
    pub(crate) flag: &'static str,
    /// Its dotted path in the message.
    pub(crate) path: &'static str,
    /// How its flag is read.
    pub(crate) shape: Shape,
    /// When it may, or must, be given.
    pub(crate) when: When,
    /// Help; empty: the field's comment in the `.proto` file.
    pub(crate) help: &'static str,
}

/// How a flag is read where the descriptor alone does not say it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// As the field's type says.
    Plain,
    /// Another resource of the same load balancer.
    Reference(&'static Kind),
    /// A second VIP.
    Vip,
    /// Names of the switches that are on in a message of switches.
    Switches,
}

/// When a flag may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// At create, where it must be; never changed afterwards.
    Required,
    /// At create only.
    Create,
    /// Always.
    Always,
}

/// A column of a list.
#[derive(Debug)]
pub(crate) struct Column {
    /// Its heading.
    pub(crate) heading: &'static str,
    /// Paths of the fields that it shows, joined by ':'; of several lines, by ','.
    pub(crate) path: &'static str,
}

/// A field with the flag of its own name and type, which may always be set.
const fn field(flag: &'static str, path: &'static str) -> Field {
    Field { flag, path, shape: Shape::Plain, when: When::Always, help: "" }
}

impl Field {
    /// The same field, given at create only.
    const fn at_create(mut self) -> Self {
        self.when = When::Create;
        self
    }

    /// The same field, which create must be given.
    const fn required(mut self) -> Self {
        self.when = When::Required;
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

/// A column.
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
