//! Tables of this program in `docs/configuration.md`.

use clap::CommandFactory as _;
use fiberlb_doc_tables::{check, check_keys, commands, options, settings};

use super::*;
use crate::arguments::Arguments;

#[test]
fn settings_are_as_on_the_page() {
    let tables: [(&str, &[&str]); 4] = [
        ("plugin-api", &["api", "principal", "limits", "networks"]),
        ("plugin-cloud", &["store", "northbound", "agents", "fleet", "reconcile"]),
        ("plugin-logs", &["metrics", "log"]),
        ("connections", &["api.connections"]),
    ];
    for (name, sections) in tables {
        let rows = settings(sections, Config::check);
        check("configuration.md", name, &["key", "value", "default", "meaning"], |_| rows);
    }
}

#[test]
fn options_are_as_on_the_page() {
    let rows = options(&Arguments::command(), Overrides::put_over);
    check("configuration.md", "plugin-options", &["option", "environment", "key"], |_| rows);
}

#[test]
fn commands_are_as_on_the_page() {
    let rows = commands(&Arguments::command());
    check("configuration.md", "plugin-commands", &["command", "arguments", "meaning"], |_| rows);
}

#[test]
fn the_page_names_each_key_and_no_other() {
    check_keys::<Config>("configuration.md", "fiberlb-proxy");
}

#[test]
fn the_default_written_as_a_file_is_read_as_the_default() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
}
