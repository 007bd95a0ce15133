//! The messages that pages explain are ones that the programs say.
//!
//! Looked at are tables whose first column is headed `message` or `what is said`: each piece of code in it must stand in one
//! source file, `…` standing for what is filled in.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

/// Headings of columns of messages.
const HEADINGS: [&str; 2] = ["message", "what is said"];
/// Where the programs are.
const SOURCES: [&str; 10] = [
    "cli/src",
    "daemon/src",
    "ovn/node/src",
    "ovn/northbound/src",
    "ovn/ovsdb/src",
    "plugin/chainfire-client/src",
    "plugin/src",
    "plugin/store/src",
    "proxy/src",
    "testenv/compose",
];
/// What etcd says, and what is shown with the name that is filled in.
const EXCEPTIONS: [&str; 2] = ["database space exceeded", "the server has no database OVN_Northbound"];
/// Folders of what was built.
const BUILT: [&str; 2] = ["bin", "binaries"];

/// Fails if a page explains a message that nobody says.
pub(crate) fn check(repository: &Path, page: &str) -> Result<()> {
    let messages = messages(page);
    if messages.is_empty() {
        return Ok(());
    }
    let mut sources = Vec::new();
    for folder in SOURCES {
        read(&repository.join(folder), &mut sources)?;
    }
    let is_said = |message: &&String| {
        let mut pieces = message.split('…').map(str::trim).filter(|piece| !piece.is_empty()).peekable();
        let pieces: Vec<&str> = if pieces.peek().is_some() { pieces.collect() } else { vec![message] };
        sources.iter().any(|source| pieces.iter().all(|piece| source.contains(piece)))
    };
    let unsaid: Vec<&String> = messages.iter().filter(|message| !is_said(message)).collect();
    ensure!(unsaid.is_empty(), "nobody says: {unsaid:#?}");
    Ok(())
}

fn messages(page: &str) -> Vec<String> {
    let mut messages = Vec::new();
    let mut is_wanted = false;
    for line in page.lines() {
        let Some(row) = line.strip_prefix("| ") else {
            is_wanted = is_wanted && line.starts_with('|');
            continue;
        };
        let cell = row.split(" | ").next().unwrap_or_default();
        is_wanted = is_wanted || HEADINGS.contains(&cell);
        if is_wanted {
            let code = cell.split('`').skip(1).step_by(2).map(str::to_owned);
            messages.extend(code.filter(|code| !EXCEPTIONS.contains(&code.as_str())));
        }
    }
    messages
}

/// All Rust files and scripts, strings that go over several lines in one.
fn read(folder: &Path, sources: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if !BUILT.iter().any(|built| name == *built) {
                read(&path, sources)?;
            }
        } else if path.extension().is_none_or(|end| end == "rs" || end == "sh") {
            let text = fs::read_to_string(&path)?;
            let mut pieces = text.split("\\\n");
            let first = pieces.next().unwrap_or_default().to_owned();
            sources.push(pieces.fold(first, |text, piece| text + piece.trim_start()));
        }
    }
    Ok(())
}
