//! `fiberlb-docs`: runs the commands that pages of the documentation show, and tells which were not as the page says.

use std::path::PathBuf;
use std::process::ExitCode;

use anstream::{eprintln, print, println};
use anyhow::{Context as _, Result};
use clap::Parser;
use fiberlb_docs::{Page, Part, Progress, Step, open_lab, run_part};

/// Runs the commands that pages of the documentation show.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Only say what would be run where.
    #[arg(long)]
    list: bool,
    /// Show what each command printed.
    #[arg(long, short)]
    verbose: bool,
    /// Start the lab that a page presupposes, for you to type the page's commands in; run nothing.
    #[arg(long)]
    lab: bool,
    /// Run only parts in this world; with `--lab`, which of a page's worlds, if it has several.
    #[arg(long, value_name = "NAME")]
    world: Option<String>,
    /// The pages.
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints each step and how it ended.
struct Printer {
    verbose: bool,
}

impl Progress for Printer {
    fn begins(&mut self, line: usize, step: &str) {
        print!("{line:5}  {}", step.replace('\n', "\n       "));
        // Nobody need see it at once.
        let _ = std::io::Write::flush(&mut std::io::stdout());
    }

    fn is_well(&mut self, output: &str) {
        println!("  ok");
        if self.verbose {
            output.lines().for_each(|line| println!("         {line}"));
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse()).await.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let mut status = ExitCode::SUCCESS;
    for file in &arguments.files {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let page = Page::parse(&text).with_context(|| file.display().to_string())?;
        println!("{}", file.display());
        if arguments.lab {
            let own = page.parts.first().map(|part| part.world.clone());
            let world =
                arguments.world.clone().or(own).context("this page shows no commands that are run")?;
            open_lab(&world).await?;
            continue;
        }
        let is_wanted = |part: &&Part| arguments.world.as_ref().is_none_or(|world| *world == part.world);
        for part in page.parts.iter().filter(is_wanted) {
            println!("{:5}  in the world {}", part.line, part.world);
            if arguments.list {
                part.steps.iter().for_each(list);
            } else if let Err(failure) = run_part(part, &mut Printer { verbose: arguments.verbose }).await {
                println!("  FAILED\n{failure:#}");
                status = ExitCode::FAILURE;
            }
        }
        for exempt in &page.exempt {
            println!("{:5}  not run: {}", exempt.line, exempt.reason);
        }
    }
    Ok(status)
}

fn list(step: &Step) {
    match step {
        Step::File(file) => println!("{:5}  writes {}", file.line, file.path),
        Step::Command(command) => {
            println!("{:5}  {}", command.line, command.text.replace('\n', "\n       "));
        }
    }
}
