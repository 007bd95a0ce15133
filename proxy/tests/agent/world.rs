//! A mount and network namespace of one test. It goes, with all that is in it, however the test ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use fiberlb_node::netns::Netns;
use fiberlb_ovn_release::Release;

/// Nothing here takes longer, unless it never comes.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Programs without which no test of these can run.
const PROGRAMS: [&str; 4] = ["unshare", "nsenter", "setpriv", "ip"];

/// `/run` is a private tmpfs; named namespaces live there. The shell ends with its standard input.
const SHELL: &str =
    "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up && echo ready && exec cat";

/// True if this machine can run these tests. If not, prints so past the capture of the test harness.
pub(crate) fn can_run(test: &str) -> bool {
    let reason = match missing() {
        None => return true,
        Some(reason) => reason,
    };
    // Nothing useful can be done if standard error is closed.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    false
}

fn missing() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |program: &&&str| std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if let Some(program) = PROGRAMS.iter().find(|program| !is_there(program)) {
        return Some(format!("there is no {program}"));
    }
    let mut probe = Command::new("unshare");
    probe.args(["--mount", "--net", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        return Some("no permission to make namespaces".to_owned());
    }
    Release::chosen().err().map(|why| why.to_string())
}

/// The world.
pub(crate) struct World {
    shell: Child,
    hold: Option<ChildStdin>,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut shell = Command::new("unshare")
            .args(["--mount", "--net", "sh", "-c", SHELL])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let hold = shell.stdin.take();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { shell, hold, dir: tempfile::tempdir().unwrap() }
    }

    /// A file of the test's own directory, which is the same inside and outside.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path of the world as the test reaches it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.shell.id()))
    }

    /// A command in the world, which dies with the test.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Release::chosen().unwrap().command("nsenter");
        command.args([&format!("--target={}", self.shell.id()), "--mount", "--net"]);
        command.args(["setpriv", "--pdeathsig", "KILL", "--"]).arg(program.as_ref());
        command
    }

    /// Runs a command line (words without blanks) and returns what it says.
    pub(crate) fn run(&self, line: &str) -> String {
        let (ok, text) = self.try_run(line);
        assert!(ok, "{line}: {text}");
        text
    }

    /// Success of a command, and its output.
    pub(crate) fn try_run(&self, line: &str) -> (bool, String) {
        let mut words = line.split_whitespace();
        let output = self.command(words.next().unwrap()).args(words).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// The network namespace of the world's own.
    pub(crate) fn netns(&self) -> Netns {
        Netns::open(Path::new(&format!("/proc/{}/ns/net", self.shell.id()))).unwrap()
    }

    /// Names of named namespaces, sorted.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("/run/netns")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.hold.take());
        let _ = self.shell.wait();
    }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, wait).await.is_ok(), "never: {what}");
}
