//! Manual pages and shell completions, from the definition of a command line.

use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Section of the manual for daemons.
const SECTION: &str = "8";

/// Writes a daemon's completions for bash, zsh and fish into a directory, and a manual page for it and for each of its commands.
///
/// # Errors
/// A file cannot be written.
pub fn write(command: Command, directory: &Path) -> io::Result<()> {
    let mut command = command.disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command, &name, directory)?;
    }
    command.build();
    pages(&command, directory)
}

fn pages(command: &Command, directory: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        pages(inner, directory)?;
    }
    Man::new(command.clone()).section(SECTION).generate_to(directory).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Arg;

    #[test]
    fn each_command_has_a_page_but_hidden_ones() {
        let export = Command::new("export").about("Write all").arg(Arg::new("FILE"));
        let hidden = Command::new("manual").hide(true);
        let command =
            Command::new("d").subcommand(Command::new("store").subcommand(export)).subcommand(hidden);
        let directory = tempfile::tempdir().unwrap();
        write(command, directory.path()).unwrap();
        let mut files: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["_d", "d-store-export.8", "d-store.8", "d.8", "d.bash", "d.fish"]);
        let page = std::fs::read_to_string(directory.path().join("d-store-export.8")).unwrap();
        assert!(page.contains("Write all"), "{page}");
    }
}
