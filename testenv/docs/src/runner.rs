//! Runs the parts of pages, and tells those who watch how each step ended.

use anyhow::{Result, bail};

use crate::page::{Part, Step};
use crate::page_world::PageWorld;
use crate::session::Session;

/// Told of each step.
pub trait Progress {
    /// A step begins: its line on the page, and what it is.
    fn begins(&mut self, line: usize, step: &str);
    /// It was as the page says, and printed this.
    fn is_well(&mut self, output: &str);
}

/// Runs one part of a page in a world of its own.
///
/// # Errors
/// The first step that was not as the page says, and how it was.
pub async fn run_part(part: &Part, progress: &mut impl Progress) -> Result<()> {
    let mut session = Session::open(PageWorld::start(&part.world).await?).await?;
    for step in &part.steps {
        let (line, name) = described(step);
        progress.begins(line, name);
        let ran = match step {
            Step::File(file) => session.write(file).await.map(|()| String::new()),
            Step::Command(command) => session.run(command).await,
        };
        match ran {
            Ok(output) => progress.is_well(&output),
            Err(error) => bail!("line {line}: {name}\n{error:#}\n{}", session.logs().await),
        }
    }
    session.end().await
}

fn described(step: &Step) -> (usize, &str) {
    match step {
        Step::File(file) => (file.line, &file.path),
        Step::Command(command) => (command.line, &command.text),
    }
}
