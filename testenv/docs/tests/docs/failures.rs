//! The runner fails where a page is wrong. In the world `host`, by commands that change nothing.

use fiberlb_docs::{HOST, Page, Progress, run_part};
use libtest_mimic::{Failed, Trial};

/// Name, what stands in the page's blocks, and what the failure says; empty where the page is right.
const PAGES: [(&str, &str, &str); 9] = [
    (
        "right",
        "```ini\n# a/b.ini\nx = 1\n```\n```console\n$ cat a/b.ini\n# a/b.ini\nx = …\n$ cd a && export A=1\n$ ls; echo $A\nb.ini\n1\n```\n",
        "",
    ),
    (
        "a status",
        "```console\n$ false # exits with 1\n$ true\n$ (exit 3)\n```\n",
        "line 5: (exit 3)\nit ended with 3, not with 0",
    ),
    (
        "a status that does not come",
        "```console\n$ true # exits with 1\n```\n",
        "it ended with 0, not with 1",
    ),
    ("another output", "```console\n$ printf 'a b\\nc\\n'\nc\na b\n```\n", "it did not print `a b`"),
    ("an interrupt", "```console\n$ echo begun; sleep 600\nbegun\n^C\n$ echo on\non\n```\n", ""),
    ("nothing to interrupt", "```console\n$ echo begun\nended\n^C\n```\n", "it ended by itself with 0"),
    (
        "a daemon that ends",
        "```console\n$ fiberlb-plugin --store /nowhere/x.redb\n```\n",
        "the directory /nowhere of the store does not exist",
    ),
    ("a file outside", "```ini\n# ../a.ini\n```\n", "../a.ini is not in the working directory"),
    ("no such machine", "```console\n$ true # on node-1\n```\n", "has no machine node-1"),
];

struct Silence;

impl Progress for Silence {
    fn begins(&mut self, _: usize, _: &str) {}
    fn is_well(&mut self, _: &str) {}
}

/// A test for each of them.
pub(crate) fn trials() -> Vec<Trial> {
    let trial = |(name, blocks, failure): (&str, &'static str, &'static str)| {
        Trial::test(format!("the runner: {name}"), move || check(blocks, failure))
    };
    PAGES.into_iter().map(trial).collect()
}

fn check(blocks: &str, failure: &str) -> Result<(), Failed> {
    let page = Page::parse(&format!("<!-- world: {HOST} -->\n{blocks}"))?;
    let part = page.parts.first().ok_or("no part")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match runtime.block_on(run_part(part, &mut Silence)) {
        Ok(()) if failure.is_empty() => Ok(()),
        Ok(()) => Err("it did not fail".into()),
        Err(error) if !failure.is_empty() && format!("{error:#}").contains(failure) => Ok(()),
        Err(error) => Err(format!("{error:#}").into()),
    }
}
