//! Comparison of `docs/configuration.md` with this program.

use clap::{CommandFactory as _, FromArgMatches as _};
use fiberlb_pages::{Page, command_faults, option_faults, setting_faults, unknown_keys};
use serde_json::Value;

use super::*;
use crate::arguments::Arguments;

fn page() -> Page {
    let whole = Page::read("configuration.md").unwrap();
    whole.below("fiberlb-plugin").unwrap().and(whole.below("Connections").unwrap())
}

fn value(config: &Config) -> Value {
    serde_json::to_value(config).unwrap()
}

fn load(value: Value) -> Result<(), String> {
    let config: Config = serde_json::from_value(value).map_err(|error| error.to_string())?;
    config.check().map_err(|error| format!("{error:#}"))
}

fn with_options(arguments: &[&str]) -> Option<Value> {
    let command = Arguments::command();
    let matches = command.try_get_matches_from([&["fiberlb-plugin"], arguments].concat()).ok()?;
    let mut config = Config::default();
    Overrides::from_arg_matches(&matches).ok()?.put_over(&mut config);
    Some(value(&config))
}

#[test]
fn each_key_is_there_with_its_range_and_default() {
    assert_eq!(setting_faults(&page(), &value(&Config::default()), load), Vec::<String>::new());
}

#[test]
fn each_option_is_there_with_its_variable_and_the_key_that_it_sets() {
    let default = value(&Config::default());
    let faults = option_faults(&page(), &Arguments::command(), &default, with_options);
    assert_eq!(faults, Vec::<String>::new());
}

#[test]
fn each_subcommand_is_there_with_its_arguments() {
    assert_eq!(command_faults(&page(), &Arguments::command()), Vec::<String>::new());
}

#[test]
fn no_other_key_is_named() {
    assert_eq!(unknown_keys(&page(), &value(&Config::default())), Vec::<String>::new());
}

#[test]
fn the_default_written_as_a_file_is_read_as_the_default() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(toml::from_str::<Config>(&text).unwrap(), Config::default());
}
