//! Tables of this program in `docs/configuration.md`.

use clap::CommandFactory as _;
use fiberlb_doc_tables::{check, check_keys, commands, options, settings};

use super::*;
use crate::arguments::Arguments;

#[test]
fn settings_are_as_on_the_page() {
    let rows = settings(
        &["node", "plugin", "network", "dataplane", "state", "metrics", "log", "access_log"],
        Config::check,
    );
    check("configuration.md", "proxy-settings", &["key", "value", "default", "meaning"], |_| rows);
}

#[test]
fn options_are_as_on_the_page() {
    let rows = options(&Arguments::command(), Overrides::put_over);
    check("configuration.md", "proxy-options", &["option", "environment", "key"], |_| rows);
}

#[test]
fn commands_are_as_on_the_page() {
    let rows = commands(&Arguments::command());
    check("configuration.md", "proxy-commands", &["command", "arguments", "meaning"], |_| rows);
}

#[test]
fn the_page_names_each_key_and_no_other() {
    check_keys::<Config>("configuration.md", "fiberlb-plugin");
}

#[test]
fn the_default_written_as_a_file_is_read_as_the_default() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
}
