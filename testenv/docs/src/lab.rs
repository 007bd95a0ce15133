//! The lab that a page presupposes, for a person who types what the page shows.

use std::fs;
use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::page_world::{HOST, PageWorld};
use crate::session::Session;

/// Starts the lab of this kind, opens a shell on its first machine, and ends the lab when that shell ends. Says how to open
/// shells on the other machines.
///
/// # Errors
/// The lab cannot be started, or a daemon of OVN was not well; standard input is no terminal.
pub async fn open_lab(world: &str) -> Result<()> {
    ensure!(
        world != HOST,
        "this page is about this machine itself: type its commands here, in a checkout of fiberlb"
    );
    ensure!(std::io::stdin().is_terminal(), "--lab opens a shell, and standard input is not a terminal");
    let mut session = Session::open(PageWorld::start(world).await?).await?;
    println!("\nThe lab of the world {world} runs.");
    if !session.opening().is_empty() {
        println!("Typed already:\n");
        session.opening().iter().for_each(|line| println!("  {line}"));
    }
    println!("\nMore shells, each in a terminal of its own, as root:\n");
    let machines = session.machines();
    let mut pids = Vec::new();
    for machine in machines {
        let pid = session.shell_pid(&machine).await?;
        println!("  {machine:<10} {}", words(&terminal(pid)?).join(" "));
        pids.push((machine, pid));
    }
    let (first, pid) = pids.first().context("the world has no machine")?;
    println!("\nThis one is on {first}. `exit` ends the lab, with all that was started in it.\n");
    // Its own status is that of what was typed last.
    terminal(*pid)?.status()?;
    session.end().await
}

/// A shell beside another one: in its namespaces, its folder and its environment.
fn terminal(pid: u32) -> Result<Command> {
    let environment = fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    let mut command = Command::new("nsenter");
    command.arg(format!("--target={pid}")).args(["--mount", "--uts", "--net", "--pid", "--wd", "env", "-i"]);
    command.args(environment.split('\0').filter(|variable| !variable.is_empty()));
    command.arg(format!("TERM={term}")).arg("PS1=\\h:\\w\\$ ").args(["bash", "--noprofile", "--norc"]);
    command.stdin(Stdio::inherit());
    Ok(command)
}

/// A command as it is typed.
fn words(command: &Command) -> Vec<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| crate::shell::quoted(&word.to_string_lossy())).collect()
}
