//! Tables of this program in `docs/configuration.md`, and of the API's fields in `docs/api.md`.

use fiberlb_doc_tables::{Row, arguments, check, code, sentence};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::args::command;
use crate::failure::EXIT_CODES;
use crate::schema::{Schema, comment};

#[test]
fn options_are_as_on_the_page() {
    let rows = arguments(&command(&Schema::load().unwrap()).unwrap());
    check("configuration.md", "cli-options", &["option", "environment", "default", "meaning"], |_| rows);
}

#[test]
fn exit_codes_are_as_on_the_page() {
    let row = |(code, meaning): (u8, &str)| vec![code.to_string(), sentence(meaning)];
    let rows = EXIT_CODES.map(row).into();
    check("configuration.md", "cli-exit-codes", &["exit code", "meaning"], |_| rows);
}

#[test]
fn fields_are_as_on_the_page() {
    let messages = [
        "LoadBalancer",
        "AdditionalVip",
        "Listener",
        "WeightedPool",
        "Pool",
        "SessionPersistence",
        "PassiveHealthCheck",
        "Backend",
        "HealthCheck",
        "ResourceState",
        "Event",
    ];
    for name in messages {
        let rows = fields(&Schema::load().unwrap().message(name).unwrap());
        check("api.md", name, &["field", "default", "range, and what it means"], |_| rows);
    }
}

/// Rows of field, default and meaning.
fn fields(message: &MessageDescriptor) -> Vec<Row> {
    let row = |field: FieldDescriptor| {
        let (first, meaning) = comment(&field);
        let default = match first.as_str() {
            "Required" => "required",
            "Output only" => "*output*",
            default => default.strip_prefix("Default: ").expect("a default"),
        };
        vec![code(field.name()), default.to_owned(), sentence(&meaning)]
    };
    message.fields().map(row).collect()
}
