//! Settings files (TOML), variables of the environment, and checks of single values.

use std::fmt::Display;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Folder that the units give the services.
const FOLDER: &str = "/etc/fiberlb";

/// Reason why a settings file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFileError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Failure.
        source: io::Error,
    },
    /// It is no TOML, has an unknown key, or a value of another type. The source names line, column and key.
    #[error("the configuration file {} is not valid", path.display())]
    Content {
        /// File.
        path: PathBuf,
        /// First thing that is wrong.
        source: Box<toml::de::Error>,
    },
}

/// Value outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} is {value}: give {expected}")]
pub struct RangeError {
    /// Key, such as `store.timeout_ms`.
    pub key: String,
    /// Configured value.
    pub value: String,
    /// Legal values, for people.
    pub expected: String,
}

/// Reads settings from a TOML file; without a file all have their defaults.
///
/// # Errors
/// [`SettingsFileError`] names the file, the place in it and the key.
pub fn load<T: DeserializeOwned + Default>(path: Option<&Path>) -> Result<T, SettingsFileError> {
    let Some(path) = path else { return Ok(T::default()) };
    let text = std::fs::read_to_string(path)
        .map_err(|source| SettingsFileError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text)
        .map_err(|source| SettingsFileError::Content { path: path.to_owned(), source: Box::new(source) })
}

/// Path of a configuration file with this name in the folder that systemd gives a service (`ConfigurationDirectory`), if there
/// is one, or if that cannot be told: [`load`] then says why.
#[must_use]
pub fn of_service(name: &str) -> Option<PathBuf> {
    in_folder(Path::new(&std::env::var_os("CONFIGURATION_DIRECTORY")?), name)
}

/// Path of the file with this name that the service reads, for a check by hand: the same, and outside systemd the one in
/// `/etc/fiberlb`.
#[must_use]
pub fn of_service_by_hand(name: &str) -> Option<PathBuf> {
    of_service(name).or_else(|| in_folder(Path::new(FOLDER), name))
}

fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    path.try_exists().unwrap_or(true).then_some(path)
}

/// Logs which file settings were read from.
pub fn log_source(path: Option<&Path>) {
    match path {
        Some(path) => tracing::info!(file = %path.display(), "read the configuration file"),
        None => tracing::info!("no configuration file: settings are defaults, options and variables"),
    }
}

/// Logs variables of the environment that begin with `prefix` and are no option's of `command`. Those that begin with one of
/// `others` are other programs'.
pub fn log_unknown_variables(command: &clap::Command, prefix: &str, others: &[&str]) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in unknown_variables(command, prefix, others, names) {
        tracing::warn!(
            name,
            "ignored an environment variable that no setting has; --help lists those that are read"
        );
    }
}

fn unknown_variables(
    command: &clap::Command,
    prefix: &str,
    others: &[&str],
    names: impl Iterator<Item = String>,
) -> Vec<String> {
    let is_known = |name: &str| command.get_arguments().any(|it| it.get_env().is_some_and(|it| it == name));
    let is_other = |name: &str| others.iter().any(|other| name.starts_with(other));
    names.filter(|name| name.starts_with(prefix) && !is_known(name) && !is_other(name)).collect()
}

/// Overwrites a setting with the value from the command line or the environment, if there is one.
pub fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// Checks that a value lies within a range.
///
/// # Errors
/// [`RangeError`] names the key.
pub fn in_range<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), RangeError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refused(key, value, format!("{} to {}", range.start(), range.end())))
}

/// Checks that a value is not too small.
///
/// # Errors
/// [`RangeError`] names the key.
pub fn at_least<T: PartialOrd + Display + Copy>(key: &str, value: T, least: T) -> Result<(), RangeError> {
    if value >= least { Ok(()) } else { Err(refused(key, value, format!("at least {least}"))) }
}

fn refused(key: &str, value: impl Display, expected: String) -> RangeError {
    RangeError { key: key.to_owned(), value: value.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Example {
        listen: String,
        port: u16,
    }

    fn read(text: &str) -> Result<Example, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(Some(file.path())).map_err(|error| {
            let text = crate::errors::chain(&error);
            assert!(text.contains(&file.path().display().to_string()), "{text}");
            text
        })
    }

    #[test]
    fn a_file_overrides_defaults_and_none_is_all_defaults() {
        assert_eq!(load::<Example>(None).unwrap(), Example::default());
        assert_eq!(read("port = 5").unwrap(), Example { port: 5, ..Example::default() });
    }

    #[test]
    fn errors_name_file_place_and_key() {
        for (text, words) in [
            ("lisen = \"a\"", &["lisen", "listen", "line 1"][..]),
            ("\nport = \"a\"", &["port", "line 2"]),
            ("port = 70000", &["port", "70000"]),
            ("port", &["line 1"]),
        ] {
            let error = read(text).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
        let error = load::<Example>(Some(Path::new("/nowhere/x.toml"))).unwrap_err();
        assert!(error.to_string().starts_with("cannot read the configuration file /nowhere/x.toml"));
    }

    #[test]
    fn a_file_that_may_be_there_is_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path(), "x.toml"), None);
        let path = folder.path().join("x.toml");
        // A loop of links: the file cannot be looked at, as in a folder that is not to be searched.
        std::os::unix::fs::symlink(&path, &path).unwrap();
        assert_eq!(in_folder(folder.path(), "x.toml"), Some(path.clone()));
        let error = load::<Example>(Some(&path)).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }

    #[test]
    fn variables_that_no_option_reads_are_told_from_those_of_others() {
        let command = clap::Command::new("x").arg(clap::Arg::new("listen").env("X_LISTEN"));
        let names = ["X_LISTEN", "X_LISTN", "X_OTHER_LISTN", "PATH", "X_"].map(str::to_owned);
        let unknown = unknown_variables(&command, "X_", &["X_OTHER_"], names.into_iter());
        assert_eq!(unknown, ["X_LISTN", "X_"]);
    }

    #[test]
    fn values_outside_their_range_are_refused_by_name() {
        assert_eq!(in_range("a.b_ms", 5, &(1..=5)), Ok(()));
        let error = in_range("a.b_ms", 6, &(1..=5)).unwrap_err();
        assert_eq!(error.to_string(), "a.b_ms is 6: give 1 to 5");
        assert_eq!(at_least("a.c", 1, 1), Ok(()));
        assert_eq!(at_least("a.c", 0, 1).unwrap_err().to_string(), "a.c is 0: give at least 1");
    }
}
