//! Runs the commands that pages of the documentation show, as a reader would type them, and compares what they print.
//!
//! # What a page looks like
//!
//! * Fenced blocks with the language `console` are run. A line that begins with `$ ` is a command for bash; a backslash at its
//!   end continues it on the next line. All commands of a page run in one session, in a fresh working directory.
//! * Lines below a command are output that it must have: each a whole line, in this order; other lines may stand between.
//!   `…` stands for any text, alone on a line for any lines or none; blanks are squeezed. `^C` interrupts the command once
//!   the lines above have appeared. A command that only looks (`fiberlb tree`, `list`, `show`, `get`, `verify`; `curl`) is
//!   typed again for some seconds until it shows that.
//! * A command ends with 0, or with what a comment behind it says: `# exits with 3`. A comment that is or begins with
//!   `# on node-2` (`: words` may follow) has it typed on that machine, which has a session of its own.
//! * A block of yaml, toml, ini, json, sh or python whose first line is `# NAME` or `# NAME: words`, NAME being a path with a dot
//!   and without blanks, is a file: it is written at that point (of JSON, without that line). `: on node-2` puts it on that
//!   machine.
//! * `fiberlb-plugin` and `fiberlb-proxy` without a subcommand are daemons: they go on in the background once they are ready,
//!   until the part ends, or until one of the same program and machine is started with the same `--listen` or `--node-id`.
//!   Lines below such a command are looked for in its log. One that ends by itself is a failure.
//! * `<!-- world: NAME -->` on a line of its own says what the page presupposes ([`PageWorld`] knows the worlds); once more on the
//!   page, it begins a new session in a new world. `<!-- not run: REASON -->` before a block exempts it.
//!
//! `systemctl`, `journalctl` and `scp` are stand-ins in worlds other than `host`: the first two run what the units in
//! `/etc/systemd/system` say, as the user and with the capabilities that these give; the last one copies between machines.

mod command_line;
mod comparison;
mod daemon;
mod lab;
mod machine;
mod markdown;
mod page;
mod page_world;
mod parser;
mod runner;
mod scripts;
mod session;
mod shell;
mod sockets;
mod workspace;
mod worlds;

pub use comparison::missing;
pub use lab::open_lab;
pub use page::{Command, Exempt, File, Page, PageError, Part, Step};
pub use page_world::{HOST, PageWorld};
pub use runner::{Progress, run_part};
