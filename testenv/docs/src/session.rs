//! The sessions of one part of a page: a shell on each machine that it names, and the daemons that run meanwhile.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use tokio::time::sleep;

use crate::command_line::{DaemonLine, only_looks};
use crate::comparison::missing;
use crate::daemon::Daemon;
use crate::page::{Command, File};
use crate::page_world::PageWorld;
use crate::parser::command;
use crate::shell::{Ended, Shell, quoted};
use crate::sockets::{children, inner_pid};

/// Limit of the session's own commands.
const HELP: Duration = Duration::from_secs(30);
/// Longest wait for a daemon's log to have what its page shows.
const LOGGED: Duration = Duration::from_secs(20);
/// Longest time for which a command that only reads is retried.
const SHOWN: Duration = Duration::from_secs(20);
/// Command that shows the end of a failed daemon's log.
const END_OF_LOG: &str = "tail -n 30";

/// Sessions on the machines of a world.
#[derive(Debug)]
pub(crate) struct Session {
    world: PageWorld,
    /// By the machine's name; the first machine's has none.
    shells: HashMap<Option<String>, Shell>,
    daemons: Vec<Daemon>,
    started: usize,
}

impl Session {
    /// A session in a world, whose opening commands have been run.
    ///
    /// # Errors
    /// One of these has failed.
    pub(crate) async fn open(world: PageWorld) -> Result<Self> {
        let mut session = Self { world, shells: HashMap::new(), daemons: Vec::new(), started: 0 };
        for text in session.world.opening() {
            if let Err(error) = session.run(&command(0, (*text).to_owned())).await {
                bail!("{text}\n{error:#}\n{}", session.logs().await);
            }
        }
        Ok(session)
    }

    /// Names of the machines; the first is where commands are typed if nothing else is said.
    pub(crate) fn machines(&self) -> Vec<String> {
        self.world.machines()
    }

    /// Commands that have been typed on the first machine already.
    pub(crate) fn opening(&self) -> &'static [&'static str] {
        self.world.opening()
    }

    /// The pid of the shell on a machine, as the host sees it.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) async fn shell_pid(&mut self, machine: &str) -> Result<u32> {
        Ok(self.shell(Some(machine)).await?.pid())
    }

    /// Writes a file.
    pub(crate) async fn write(&mut self, file: &File) -> Result<()> {
        self.world.check_path(&file.path)?;
        let (path, text) = (quoted(&file.path), quoted(&file.text));
        let command = format!("mkdir -p \"$(dirname {path})\" && printf %s {text} >{path}");
        let ended = self.help(file.machine.as_deref(), &command).await?;
        ensure!(ended.status == 0, "cannot write {}: {}", file.path, ended.output);
        Ok(())
    }

    /// Runs a command as its page says, and gives what it printed.
    ///
    /// # Errors
    /// A difference from the page.
    pub(crate) async fn run(&mut self, command: &Command) -> Result<String> {
        self.all_run()?;
        match DaemonLine::read(&command.text) {
            Some(line) if !command.interrupted && command.status == 0 => self.daemon(command, line).await,
            _ if !only_looks(&command.text) => self.command(command).await,
            _ => self.look(command).await,
        }
    }

    /// Runs a command again until it shows what the page shows: readers are slower than what they look at.
    async fn look(&mut self, command: &Command) -> Result<String> {
        let began = Instant::now();
        loop {
            match self.command(command).await {
                Err(_) if began.elapsed() < SHOWN => sleep(Duration::from_millis(200)).await,
                ended => return ended,
            }
        }
    }

    /// Ends everything in order.
    ///
    /// # Errors
    /// A daemon has ended before, or does not end.
    pub(crate) async fn end(mut self) -> Result<()> {
        self.all_run()?;
        // Clients are stopped before their servers.
        while let Some(daemon) = self.daemons.pop() {
            daemon.stop().await?;
        }
        for (_, shell) in self.shells.drain() {
            shell.end().await;
        }
        self.world.end()
    }

    /// The ends of all logs, for whoever looks for the reason of a failure.
    pub(crate) async fn logs(&mut self) -> String {
        let mut logs = String::new();
        for daemon in std::mem::take(&mut self.daemons) {
            let machine = daemon.machine.as_deref().unwrap_or("the first machine");
            let log = self.end_of_log(&daemon).await;
            logs.push_str(&format!("The end of the log of {} on {machine}:\n{log}\n", daemon.program.name()));
        }
        logs
    }

    async fn command(&mut self, command: &Command) -> Result<String> {
        self.world.settle(command.machine.as_deref(), &command.text).await?;
        let limit = self.world.limit();
        let spared: Vec<u32> = self.daemons.iter().map(|daemon| daemon.pid).collect();
        let shell = self.shell(command.machine.as_deref()).await?;
        if command.interrupted {
            let enough = |output: &str| {
                let whole_lines = output.rfind('\n').and_then(|end| output.get(..end)).unwrap_or_default();
                missing(&command.expected, whole_lines).is_none()
            };
            return Ok(shell.run_until(&command.text, limit, &enough, &spared).await?.output);
        }
        let Ended { status, output } = shell.run(&command.text, limit).await?;
        ensure!(
            status == command.status,
            "it ended with {status}, not with {}, and said:\n{output}",
            command.status
        );
        match missing(&command.expected, &output) {
            Some(line) => bail!("it did not print `{line}` (in that place), but:\n{output}"),
            None => Ok(output),
        }
    }

    async fn daemon(&mut self, command: &Command, line: DaemonLine) -> Result<String> {
        let machine = command.machine.clone();
        while let Some(at) = self.daemons.iter().position(|daemon| daemon.is(&line, machine.as_deref())) {
            self.daemons.remove(at).stop().await?;
        }
        let daemon = self.start(line, machine).await?;
        let ready = daemon.ready().await;
        let logged = match ready {
            Ok(()) => self.logged(&daemon, &command.expected).await,
            Err(error) => Err(error),
        };
        // Also one that has failed: its log is looked for there.
        self.daemons.push(daemon);
        logged
    }

    async fn start(&mut self, line: DaemonLine, machine: Option<String>) -> Result<Daemon> {
        self.started += 1;
        let log = format!("{}/daemon-{}.log", self.world.folder(), self.started);
        let typed = format!("( {}\n) >{} 2>&1 </dev/null & echo $!", line.executed, quoted(&log));
        let ended = self.help(machine.as_deref(), &typed).await?;
        let inner: u32 = ended.output.trim().parse().with_context(|| ended.output.clone())?;
        let bash = self.shell(machine.as_deref()).await?.pid();
        let found = children(bash).into_iter().find(|child| inner_pid(*child) == Some(inner));
        let pid = found.ok_or_else(|| anyhow!("{} has ended at once", line.program.name()))?;
        Ok(Daemon { program: line.program, identity: line.identity, machine, log, pid })
    }

    /// Waits until a daemon's log has what its page shows.
    async fn logged(&mut self, daemon: &Daemon, expected: &[String]) -> Result<String> {
        let began = Instant::now();
        loop {
            let log =
                self.help(daemon.machine.as_deref(), &format!("cat {}", quoted(&daemon.log))).await?.output;
            match missing(expected, &log) {
                None => return Ok(log),
                Some(line) if began.elapsed() > LOGGED => bail!("it did not log `{line}`, but:\n{log}"),
                Some(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Fails if a daemon has ended by itself.
    fn all_run(&self) -> Result<()> {
        match self.daemons.iter().find(|daemon| !daemon.is_running()) {
            Some(daemon) => bail!("{} has ended by itself", daemon.program.name()),
            None => Ok(()),
        }
    }

    async fn end_of_log(&mut self, daemon: &Daemon) -> String {
        let command = format!("{END_OF_LOG} {}", quoted(&daemon.log));
        match self.help(daemon.machine.as_deref(), &command).await {
            Ok(ended) => ended.output,
            Err(error) => format!("cannot be read: {error:#}"),
        }
    }

    async fn help(&mut self, machine: Option<&str>, command: &str) -> Result<Ended> {
        self.shell(machine).await?.run(command, HELP).await
    }

    /// The shell on a machine, which is started when it is first needed.
    async fn shell(&mut self, machine: Option<&str>) -> Result<&mut Shell> {
        let key = machine.map(str::to_owned);
        if !self.shells.contains_key(&key) {
            let shell = Shell::start(self.world.shell(machine)?).await?;
            self.shells.insert(key.clone(), shell);
        }
        self.shells.get_mut(&key).context("no shell")
    }
}
