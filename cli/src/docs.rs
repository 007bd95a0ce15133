//! Tables of this program in `docs/configuration.md`, and of the API's fields in `docs/api.md`.

use fiberlb_doc_tables::{Row, arguments, check, code, sentence};
use prost_reflect::MessageDescriptor;

use crate::args::command;
use crate::failure::EXIT_CODES;
use crate::schema::Schema;

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
        "Pool",
        "SessionPersistence",
        "Backend",
        "HealthCheck",
        "ResourceState",
    ];
    for name in messages {
        let rows = fields(&Schema::load().unwrap().message(name).unwrap());
        check("api.md", name, &["field", "default", "range, and what it means"], |_| rows);
    }
}

/// Rows of field, default and meaning, from the comments in the `.proto` file.
fn fields(message: &MessageDescriptor) -> Vec<Row> {
    let file = message.parent_file();
    let comments = file.file_descriptor_proto().source_code_info.clone().unwrap().location;
    let row = |field: prost_reflect::FieldDescriptor| {
        let comment = comments.iter().find(|it| it.path == field.path()).unwrap().leading_comments();
        let comment = comment.split_whitespace().collect::<Vec<_>>().join(" ");
        let (first, meaning) = comment.split_once(". ").unwrap_or((&comment, ""));
        let default = match first.trim_end_matches('.') {
            "Required" => "required".to_owned(),
            "Output only" => "*output*".to_owned(),
            default => default.strip_prefix("Default: ").expect("a default").to_owned(),
        };
        vec![code(field.name()), default, sentence(meaning)]
    };
    message.fields().map(row).collect()
}
