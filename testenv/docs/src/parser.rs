//! Reads a page: which world, which files, which commands with what output. Pure.

use crate::command_line::{Remark, is_continued, machine};
use crate::markdown::{Block, Piece, pieces};
use crate::page::{Command, Exempt, File, Page, PageError, Part, Step};

/// Languages of blocks that may be files.
const FILES: [&str; 6] = ["yaml", "toml", "ini", "json", "sh", "python"];
/// The language of blocks that are run.
const CONSOLE: &str = "console";
/// A line that stands for the key that interrupts a command.
const INTERRUPT: &str = "^C";

impl Page {
    /// Reads a page's Markdown.
    ///
    /// # Errors
    /// A line that breaks the rules for pages.
    pub fn parse(text: &str) -> Result<Self, PageError> {
        let mut reader = Reader::default();
        for piece in pieces(text)? {
            reader.take(piece)?;
        }
        reader.end()
    }
}

/// State of the parser.
#[derive(Default)]
struct Reader {
    page: Page,
    /// Files before the first world: nobody writes them, unless the page has commands.
    homeless: Option<usize>,
    /// The line and reason of a `not run` that waits for its block.
    exemption: Option<(usize, String)>,
}

impl Reader {
    fn take(&mut self, piece: Piece) -> Result<(), PageError> {
        match piece {
            Piece::Comment(line, text) => self.comment(line, &text),
            Piece::Block(block) => self.block(&block),
            Piece::Text => self.no_exemption_waits(),
        }
    }

    fn end(self) -> Result<Page, PageError> {
        self.no_exemption_waits()?;
        match self.homeless {
            Some(line) if !self.page.parts.is_empty() => Err(PageError::new(line, "a file before the world")),
            _ => Ok(self.page),
        }
    }

    fn comment(&mut self, line: usize, text: &str) -> Result<(), PageError> {
        self.no_exemption_waits()?;
        let said = |key: &str| text.strip_prefix(key).map(|rest| rest.trim().to_owned());
        match (said("world:"), said("not run:")) {
            (Some(name), _) if name.is_empty() || name.contains(char::is_whitespace) => {
                Err(PageError::new(line, "`world:` needs one name"))
            }
            (Some(world), _) => {
                self.page.parts.push(Part { world, line, steps: Vec::new() });
                Ok(())
            }
            (_, Some(reason)) if reason.is_empty() => Err(PageError::new(line, "`not run:` needs a reason")),
            (_, Some(reason)) => {
                self.exemption = Some((line, reason));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn no_exemption_waits(&self) -> Result<(), PageError> {
        match self.exemption {
            Some((line, _)) => Err(PageError::new(line, "no block stands behind `not run:`")),
            None => Ok(()),
        }
    }

    fn block(&mut self, block: &Block) -> Result<(), PageError> {
        if let Some((_, reason)) = self.exemption.take() {
            self.page.exempt.push(Exempt { line: block.line, reason });
            return Ok(());
        }
        let steps = if block.language == CONSOLE {
            commands(block)?.into_iter().map(Step::Command).collect()
        } else {
            file(block).map(Step::File).into_iter().collect::<Vec<_>>()
        };
        match self.page.parts.last_mut() {
            Some(part) => part.steps.extend(steps),
            None if block.language == CONSOLE => {
                return Err(PageError::new(
                    block.line,
                    "no `<!-- world: NAME -->` stands before the command",
                ));
            }
            None if !steps.is_empty() => self.homeless = self.homeless.or(Some(block.line)),
            None => {}
        }
        Ok(())
    }
}

/// The file that a block is, if its first line names one.
fn file(block: &Block) -> Option<File> {
    let (first, rest) = block.lines.split_first()?;
    let name = first.strip_prefix("# ")?;
    let (path, words) = name.split_once(": ").unwrap_or((name, ""));
    let is_path = path.contains('.') && !path.contains(char::is_whitespace) && !path.ends_with('.');
    if !FILES.contains(&block.language.as_str()) || !is_path {
        return None;
    }
    // JSON has no comments.
    let lines = if block.language == "json" { rest } else { &block.lines };
    let text = lines.iter().map(|line| format!("{line}\n")).collect();
    Some(File { line: block.line, path: path.to_owned(), machine: machine(words), text })
}

fn commands(block: &Block) -> Result<Vec<Command>, PageError> {
    let mut commands: Vec<Command> = Vec::new();
    let mut lines = block.lines.iter().zip(block.line + 1..);
    while let Some((text, line)) = lines.next() {
        if let Some(typed) = text.strip_prefix("$ ") {
            let mut typed = typed.to_owned();
            while is_continued(&typed) {
                let (more, _) =
                    lines.next().ok_or_else(|| PageError::new(line, "the command does not end"))?;
                typed.push('\n');
                typed.push_str(more);
            }
            commands.push(command(line, typed));
        } else if let Some(command) = commands.last_mut() {
            output(command, text, line)?;
        } else {
            return Err(PageError::new(line, "the block begins with output, not with `$ `"));
        }
    }
    if commands.is_empty() {
        return Err(PageError::new(block.line, "the block has no command"));
    }
    Ok(commands)
}

/// A command without output, by its line and text.
pub(crate) fn command(line: usize, text: String) -> Command {
    let Remark { machine, status } = Remark::of(&text);
    let status = status.unwrap_or(0);
    Command { line, text, machine, expected: Vec::new(), interrupted: false, status }
}

fn output(command: &mut Command, text: &str, line: usize) -> Result<(), PageError> {
    if command.interrupted && !text.trim().is_empty() {
        return Err(PageError::new(line, "nothing is looked at behind `^C`"));
    }
    if text.trim() == INTERRUPT {
        command.interrupted = true;
    } else if !text.trim().is_empty() {
        command.expected.push(text.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
