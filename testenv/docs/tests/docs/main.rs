//! Every command that the documentation shows is run: README.md and all of docs/, a test for each world of each page.
//!
//! Tests are found by looking at the pages, so that none can be overlooked. Parts in the world `host` change this very machine:
//! whoever has one to spare runs them by `fiberlb-docs`; here they are only read.

mod failures;
mod messages;
mod targets;
mod units;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use fiberlb_docs::{HOST, Page, Part, Progress, run_part};
use fiberlb_lab::{Version, can_run_on, can_run_with};
use libtest_mimic::{Arguments, Failed, Trial};

/// Programs that pages use beside what a lab needs.
const PROGRAMS: [&str; 4] = ["bash", "curl", "etcd", "openssl"];

/// Worlds whose parts show what is written to OVN, or more traffic than the Open vSwitch of older releases bears, and the
/// release since which that is so.
const SINCE: ([&str; 2], Version) = (["ovn", "tenant"], Version::new(24, 9, 0));

/// Input and output until now, for a test that fails.
#[derive(Default)]
struct Transcript(String);

impl Progress for Transcript {
    fn begins(&mut self, line: usize, step: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{line:5}  {step}");
    }

    fn is_well(&mut self, output: &str) {
        output.lines().for_each(|line| self.0.extend(["         ", line, "\n"]));
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("../.."));
    let pages = pages(repository).into_iter().flat_map(|path| trials(repository, &path));
    let others = [units::trials(repository), targets::trials(repository), failures::trials()];
    libtest_mimic::run(&arguments, pages.chain(others.into_iter().flatten()).collect()).exit_code()
}

fn pages(repository: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository.join("docs")).into_iter().flatten().flatten();
    let docs = entries.map(|entry| entry.path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.push(repository.join("README.md"));
    pages.sort();
    pages
}

/// A test that the page can be read and explains what is really said, and one for each of its parts.
fn trials(repository: &Path, path: &Path) -> Vec<Trial> {
    let name = path.strip_prefix(repository).unwrap_or(path).display().to_string();
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return vec![Trial::test(name, move || Err(error.into()))],
    };
    match Page::parse(&text) {
        Err(error) => vec![Trial::test(name, move || Err(error.into()))],
        Ok(page) => {
            let parts = page.parts.into_iter().filter(|part| part.world != HOST);
            let page = name.clone();
            let parts = parts.map(|part| {
                let name = format!("{page}:{}:{}", part.line, part.world);
                Trial::test(name.clone(), move || run(&name, &part))
            });
            let repository = repository.to_owned();
            let read = Trial::test(name, move || Ok(messages::check(&repository, &text)?));
            [read].into_iter().chain(parts).collect()
        }
    }
}

fn run(name: &str, part: &Part) -> Result<(), Failed> {
    if !can_run_with(name, &PROGRAMS) || (SINCE.0.contains(&&*part.world) && !can_run_on(name, SINCE.1)) {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut transcript = Transcript::default();
    let ran = runtime.block_on(run_part(part, &mut transcript));
    ran.map_err(|error| format!("{}\n{error:#}", transcript.0).into())
}
