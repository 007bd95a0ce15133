//! The lab that a page presupposes, for a person who types what the page shows.

use std::fs;
use std::io::IsTerminal as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::page_world::{HOST, PageWorld};
use crate::session::Session;
use crate::shell::quoted;

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
    for machine in &machines {
        let pid = session.shell_pid(machine).await?;
        prepare(pid)?;
        println!("  {machine:<10} nsenter {} sh {SCRIPT}", namespaces(pid).join(" "));
        pids.push(pid);
    }
    let (first, pid) = machines.first().zip(pids.first()).context("the world has no machine")?;
    println!("\nThis one is on {first}. `exit` ends the lab, with all that was started in it.\n");
    // Its own status is that of what was typed last.
    Command::new("nsenter").args(namespaces(*pid)).args(["sh", SCRIPT]).stdin(Stdio::inherit()).status()?;
    session.end().await
}

/// Path on each machine of the script that becomes a shell there.
const SCRIPT: &str = "/run/shell";

/// Writes the script for shells beside another one: in its environment.
fn prepare(pid: u32) -> Result<()> {
    let environment = fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let environment: Vec<String> =
        environment.split('\0').filter(|variable| !variable.is_empty()).map(quoted).collect();
    let script = format!(
        "exec env -i {} TERM=\"${{TERM:-dumb}}\" PS1='\\h:\\w\\$ ' bash --noprofile --norc\n",
        environment.join(" ")
    );
    let path = format!("/proc/{pid}/root{SCRIPT}");
    fs::write(&path, script).with_context(|| format!("cannot write {path}"))
}

/// Arguments of `nsenter` that lead to a shell's machine and folder.
fn namespaces(pid: u32) -> [String; 6] {
    [
        format!("--target={pid}"),
        "--mount".into(),
        "--uts".into(),
        "--net".into(),
        "--pid".into(),
        "--wd".into(),
    ]
}
