//! Output: one writer that knows the format and the terminal.

pub(crate) mod canonical;
mod diff;
pub(crate) mod drain;
pub(crate) mod escape;
pub(crate) mod events;
pub(crate) mod fleet;
pub(crate) mod ovn;
pub(crate) mod stats;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod tree;

use std::io::{self, Stderr, Stdout, Write as _};

use anstream::{AutoStream, ColorChoice};
use prost_reflect::DynamicMessage;

use crate::args::Format;
use crate::changes::Change;
use crate::failure::Failure;
use crate::names::Names;
use crate::resource::Resource;

/// Standard output and standard error, with colour where requested or supported.
pub(crate) struct Output {
    /// Format of results.
    pub(crate) format: Format,
    stdout: AutoStream<Stdout>,
    stderr: AutoStream<Stderr>,
}

impl Output {
    /// Output in `format`. With `ColorChoice::Auto`, colour depends on the terminal and on `NO_COLOR`.
    pub(crate) fn new(format: Format, color: ColorChoice) -> Self {
        let stdout = AutoStream::new(io::stdout(), color);
        Self { format, stdout, stderr: AutoStream::new(io::stderr(), color) }
    }

    /// Writes a result, which ends with a newline.
    ///
    /// # Errors
    /// Closed standard output, or a full disk.
    pub(crate) fn result(&mut self, text: &str) -> Result<(), Failure> {
        self.stdout.write_all(text.as_bytes())?;
        Ok(self.stdout.flush()?)
    }

    /// Writes a line of progress to standard error, ignoring errors.
    pub(crate) fn progress(&mut self, line: &str) {
        let _ignored = writeln!(self.stderr, "{line}");
    }

    /// Writes a failure to standard error.
    pub(crate) fn failure(&mut self, failure: &Failure) {
        let style = style::BAD;
        for line in &failure.lines {
            self.progress(&format!("{style}error:{style:#} {}", escape::clean(line)));
        }
    }

    /// Writes one resource, with all its fields.
    pub(crate) fn resource(&mut self, resource: &Resource, names: &Names) -> Result<(), Failure> {
        let text = match &self.format {
            format if format.is_for_people() => table::details(resource, names),
            format => canonical::one(&resource.message, format)?,
        };
        self.result(&text)
    }

    /// Writes changes: a line for each resource and each changed field.
    ///
    /// # Errors
    /// As [`Output::result`].
    pub(crate) fn changes(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let text = match &self.format {
            format if format.is_for_people() => diff::lines(changes),
            format => canonical::write(&changes, format)?,
        };
        self.result(&text)
    }

    /// Writes resources of one kind as a list, even if there is one or none.
    pub(crate) fn list(&mut self, resources: &[Resource], names: &Names) -> Result<(), Failure> {
        let text = match &self.format {
            Format::Table => table::list(resources, names, false),
            Format::Wide => table::list(resources, names, true),
            Format::Name => resources
                .iter()
                .map(|resource| format!("{}\n", escape::clean(&names.reference(resource))))
                .collect(),
            format => {
                let messages: Vec<&DynamicMessage> =
                    resources.iter().map(|resource| &resource.message).collect();
                canonical::several(&messages, format)?
            }
        };
        self.result(&text)
    }
}
