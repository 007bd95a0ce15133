//! The processes that are compared, and the one that they check.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::load::{BACKENDS, DELAY, Probe, address};
use crate::measure;

/// Checker under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Ours,
    HaProxy,
}

/// A process that is killed on drop, and by the kernel if this one is killed.
pub(crate) struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The backends, on a core of their own.
pub(crate) fn backends() -> anyhow::Result<Process> {
    let mut process = spawn(1, &std::env::current_exe()?, &["backends"])?;
    ready(&mut process)?;
    Ok(process)
}

/// Microseconds of CPU per probe.
pub(crate) fn cost(rival: Rival, probe: Probe) -> anyhow::Result<f64> {
    match rival {
        Rival::Ours => {
            let probe = probe.to_string();
            let mut checker = spawn(0, &std::env::current_exe()?, &["checker", &probe])?;
            ready(&mut checker)?;
            measured(&checker)
        }
        Rival::HaProxy => {
            let dir = tempfile::tempdir()?;
            let (file, socket) = (dir.path().join("haproxy.cfg"), dir.path().join("stats"));
            std::fs::write(&file, configuration(probe, &socket)?)?;
            let file = file.to_str().context("the temporary directory's name is not UTF-8")?;
            let haproxy = spawn(0, Path::new("haproxy"), &["-db", "-q", "-f", file])?;
            let cost = measured(&haproxy)?;
            let up = up(&socket)?;
            ensure!(up == BACKENDS as usize, "HAProxy finds {up} of {BACKENDS} backends up");
            Ok(cost)
        }
    }
}

/// The cost when each backend was probed once or twice.
fn measured(process: &Process) -> anyhow::Result<f64> {
    measure::warm_up(u64::from(BACKENDS) * 3 / 2)?;
    measure::cost(process.0.id())
}

fn spawn(core: u32, program: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "taskset", "--cpu-list", &core.to_string()])
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Ok(Process(child.with_context(|| format!("setpriv, taskset or {}", program.display()))?))
}

fn ready(process: &mut Process) -> anyhow::Result<()> {
    let mut line = String::new();
    let stdout = process.0.stdout.as_mut().context("no standard output")?;
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line == "ready\n", "a process failed to start: {line}");
    Ok(())
}

fn configuration(probe: Probe, socket: &Path) -> anyhow::Result<String> {
    let mut text = format!("global\n nbthread 1\n stats socket {}\n", socket.display());
    text.push_str("defaults\n timeout connect 4s\n timeout client 4s\n timeout server 4s\nbackend all\n");
    if probe == Probe::Http {
        text.push_str(
            " mode http\n option httpchk\n http-check send meth GET uri / ver HTTP/1.1 hdr Host 127.0.0.1\n",
        );
        text.push_str(" http-check expect status 200\n");
    }
    for number in 0..BACKENDS {
        writeln!(text, " server s{number} {} check inter {DELAY}s rise 2 fall 3", address(number))?;
    }
    Ok(text)
}

/// Servers that HAProxy finds up.
fn up(socket: &Path) -> anyhow::Result<usize> {
    let mut stats = UnixStream::connect(socket)?;
    stats.write_all(b"show stat\n")?;
    let mut text = String::new();
    stats.read_to_string(&mut text)?;
    Ok(text
        .lines()
        .filter(|line| line.starts_with("all,s") && (line.contains("L4OK,") || line.contains("L7OK,")))
        .count())
}
