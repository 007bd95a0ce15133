//! Output of the demo: chapters with the time, command lines, checks. Never silent for long.
//!
//! Colours only on a terminal, and not where NO_COLOR is set. Knows nothing of what it prints.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anstream::println;
use anstyle::{AnsiColor, Style};

const HEADING: Style = Style::new().bold();
const TYPED: Style = AnsiColor::Cyan.on_default();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();
const QUIET: Style = Style::new().dimmed();

/// A person wonders whether it hangs after a little more than this.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// Output of the demo, with counts of checks and failures.
#[derive(Debug)]
pub(crate) struct Terminal {
    started: Instant,
    chapters: Cell<u32>,
    checks: Cell<u32>,
    failures: Cell<u32>,
}

impl Terminal {
    /// An empty one; time begins now.
    pub(crate) fn new() -> Terminal {
        let zero = || Cell::new(0);
        Terminal { started: Instant::now(), chapters: zero(), checks: zero(), failures: zero() }
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&self, title: &str) {
        bump(&self.chapters);
        println!();
        self.line(&format!("{HEADING}{}. {title}{HEADING:#}", self.chapters.get()));
    }

    /// One line with the time since the start.
    pub(crate) fn line(&self, text: &str) {
        println!("{QUIET}{:6.1} s{QUIET:#}  {text}", self.started.elapsed().as_secs_f64());
    }

    /// A line of explanation.
    pub(crate) fn note(&self, text: &str) {
        println!("          {text}");
    }

    /// A command line, as typed.
    pub(crate) fn typed(&self, line: &str) {
        self.line(&format!("{TYPED}$ {line}{TYPED:#}"));
    }

    /// Quotes a text under a title, or under the line before if that is empty.
    pub(crate) fn quote(&self, title: &str, text: &str) {
        if !title.is_empty() {
            self.note(title);
        }
        for line in text.lines() {
            println!("            {line}");
        }
    }

    /// Prints a check with what was observed, and counts it.
    pub(crate) fn check(&self, is_so: bool, claim: &str, observed: &str) {
        bump(&self.checks);
        let (style, word) = if is_so { (GOOD, "ok    ") } else { (BAD, "FAILED") };
        if !is_so {
            bump(&self.failures);
        }
        println!("          {style}{word}{style:#}  {claim} {QUIET}({observed}){QUIET:#}");
    }

    /// Says what is done, and while it lasts that it still is.
    pub(crate) async fn during<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        self.line(what);
        self.alive(work).await
    }

    /// Says every other second that work is still going on.
    pub(crate) async fn alive<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            match tokio::time::timeout(HEARTBEAT, &mut work).await {
                Ok(done) => return done,
                Err(_) => self.line(&format!("{QUIET}... still at it{QUIET:#}")),
            }
        }
    }

    /// Says why all until now does not count, and begins anew.
    pub(crate) fn begin_again(&self, why: &str) {
        println!();
        self.line(&format!("{BAD}AGAIN{BAD:#}  {why}"));
        for count in [&self.chapters, &self.checks, &self.failures] {
            count.set(0);
        }
    }

    /// True if a check failed.
    pub(crate) fn has_failures(&self) -> bool {
        self.failures.get() > 0
    }

    /// Ends the demo that came to its end.
    pub(crate) fn verdict(&self) -> ExitCode {
        println!();
        let (failures, checks) = (self.failures.get(), self.checks.get());
        if failures > 0 {
            self.line(&format!("{BAD}{failures} of {checks} checks FAILED{BAD:#}"));
            self.say_if_busy();
            return ExitCode::FAILURE;
        }
        self.line(&format!("{GOOD}all {checks} checks ok{GOOD:#}"));
        ExitCode::SUCCESS
    }

    /// Ends the demo that could not go on.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        println!();
        self.line(&format!("{BAD}FAILED{BAD:#}  the demo cannot go on: {error:#}"));
        self.say_if_busy();
    }

    /// Names the likeliest cause of a failure, where the load of the machine is one.
    fn say_if_busy(&self) {
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        if load > 1.5 * processors as f64 {
            self.note(&format!(
                "this machine is busy (load {load} on {processors} processors): answers came late, which some checks take for \
                 lost ones; run it again when the machine is quiet"
            ));
        }
    }
}

fn bump(count: &Cell<u32>) {
    count.set(count.get().saturating_add(1));
}
