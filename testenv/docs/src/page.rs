//! Content of a page that the runner acts on.

/// All that a page says about being run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Its parts, each in a world of its own.
    pub parts: Vec<Part>,
    /// Blocks that are not run.
    pub exempt: Vec<Exempt>,
}

/// Steps of one world, in the page's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The kind of world.
    pub world: String,
    /// The line of the page that says so, from 1.
    pub line: usize,
    /// Steps in their order.
    pub steps: Vec<Step>,
}

/// One thing that a reader would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write a file.
    File(File),
    /// Type a command.
    Command(Command),
}

/// A file that a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its first line on the page, from 1.
    pub line: usize,
    /// Relative to the working directory, or absolute.
    pub path: String,
    /// The machine that it is on; `None`: the world's first one.
    pub machine: Option<String>,
    /// Its whole content.
    pub text: String,
}

/// A command that a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its line on the page, from 1.
    pub line: usize,
    /// Text for bash: without the prompt, with its comment and its continuation lines.
    pub text: String,
    /// The machine that it is typed on; `None`: the world's first one.
    pub machine: Option<String>,
    /// Lines that its output must have, in this order.
    pub expected: Vec<String>,
    /// True if it is interrupted once they are there.
    pub interrupted: bool,
    /// The status that it must end with.
    pub status: i32,
}

/// A block that is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempt {
    /// Its line on the page, from 1.
    pub line: usize,
    /// Reason that the page gives.
    pub reason: String,
}

/// Error in a page itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct PageError {
    /// The line, from 1.
    pub line: usize,
    /// In words.
    pub what: String,
}

impl PageError {
    pub(crate) fn new(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into() }
    }
}
