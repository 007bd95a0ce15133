use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn steps(text: &str) -> Vec<Step> {
    Page::parse(text).unwrap().parts.into_iter().flat_map(|part| part.steps).collect()
}

fn error(text: &str) -> String {
    Page::parse(text).unwrap_err().to_string()
}

#[test]
fn a_page_is_read() {
    let page = "<!-- world: ovn -->\n\n```console\n\
        $ one \\\n    --two  # exits with 3\nsaid   this\n\nand that\n$ watch\n^C\n```\n";
    let expected = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let [Step::Command(one), Step::Command(watch)] = &*steps(page) else { panic!() };
    let text = "one \\\n    --two  # exits with 3".to_owned();
    let first = Command {
        line: 4,
        text,
        machine: None,
        expected: expected(&["said   this", "and that"]),
        interrupted: false,
        status: 3,
    };
    assert_eq!(*one, first);
    assert_eq!((watch.line, watch.interrupted, watch.expected.len()), (9, true, 0));
}

#[test]
fn files_are_told_from_other_blocks() {
    let block = |language: &str, first: &str| {
        steps(&format!("<!-- world: ovn -->\n```{language}\n{first}\nx: 1\n```\n"))
    };
    let on = |machine: Option<&str>, path: &str, text: &str| {
        let machine = machine.map(str::to_owned);
        vec![Step::File(File { line: 2, path: path.into(), machine, text: text.into() })]
    };
    let file = |path: &str, text: &str| on(None, path, text);
    let there = on(Some("node-1"), "/etc/a.ini", "# /etc/a.ini: on node-1\nx: 1\n");
    assert_eq!(block("ini", "# /etc/a.ini: on node-1"), there);
    assert_eq!(block("yaml", "# web.yaml"), file("web.yaml", "# web.yaml\nx: 1\n"));
    assert_eq!(
        block("toml", "# /etc/a.toml: of node-1"),
        file("/etc/a.toml", "# /etc/a.toml: of node-1\nx: 1\n")
    );
    assert_eq!(block("json", "# a.json"), file("a.json", "x: 1\n"));
    for (language, first) in
        [("text", "# a.txt"), ("yaml", "a.yaml"), ("yaml", "# a tree"), ("sh", "# a"), ("ini", "# Words.")]
    {
        assert_eq!(block(language, first), [], "{first}");
    }
}

#[test]
fn each_world_begins_a_part() {
    let page = "<!-- world: a -->\n```console\n$ x\n```\n<!-- world: b -->\n```console\n$ y\n$ z\n```\n";
    let parts = Page::parse(page).unwrap().parts;
    let told: Vec<_> = parts.iter().map(|part| (part.world.as_str(), part.line, part.steps.len())).collect();
    assert_eq!(told, [("a", 1, 1), ("b", 5, 2)]);
}

#[test]
fn exempt_blocks_need_no_world() {
    let page = "<!-- not run: it takes an hour -->\n\n```console\n$ make bench\n```\n";
    let exempt = vec![Exempt { line: 3, reason: "it takes an hour".to_owned() }];
    assert_eq!(Page::parse(page).unwrap(), Page { parts: Vec::new(), exempt });
}

#[test]
fn pages_that_would_not_be_run_as_meant_are_refused() {
    assert!(error("```console\n$ ls\n```\n").starts_with("line 1: no `<!-- world"));
    assert!(error("```ini\n# a.ini\n```\n<!-- world: a -->\n").starts_with("line 1: a file before"));
    assert!(error("<!-- world: a -->\n```console\n```\n").contains("no command"));
    assert!(error("<!-- world: a -->\n```console\nls\n```\n").contains("begins with output"));
    assert!(error("<!-- world: a -->\n```console\n$ ls \\\n```\n").contains("does not end"));
    assert!(error("<!-- world: a -->\n```console\n$ ls\n^C\nx\n```\n").contains("behind `^C`"));
    assert!(error("<!-- world: -->\n").contains("one name"));
    assert!(error("<!-- not run: -->\n").contains("reason"));
    assert!(error("<!-- not run: so -->\nText\n").contains("no block"));
    assert!(error("<!-- not run: so -->\n").contains("no block"));
}

#[test]
fn a_page_without_commands_asks_for_nothing() {
    assert_eq!(Page::parse("# T\n```ini\n# a.ini\n```\n```rust\nx\n```\n").unwrap(), Page::default());
}

proptest! {
    #[test]
    fn no_text_breaks_it(text in "(```|console|\\$ | |\n|<!-- |world: |not run: |-->|a|\\\\|\\^C|…|\\PC){0,60}") {
        let _ = Page::parse(&text);
    }

    #[test]
    fn what_is_written_is_read(
        wanted in vec(("[a-z]{1,8}( [a-z-]{1,8}){0,3}", vec("[A-Z]{1,8}( [0-9]{1,3}){0,3}", 0..4)), 1..6),
    ) {
        let block = |(text, output): &(String, Vec<String>)| {
            format!("```console\n$ {text}\n{}\n```\n", output.join("\n"))
        };
        let blocks: String = wanted.iter().map(block).collect();
        let told = |step| match step {
            Step::Command(command) => (command.text, command.expected),
            Step::File(file) => panic!("{file:?}"),
        };
        let read = steps(&format!("<!-- world: ovn -->\n{blocks}")).into_iter().map(told);
        prop_assert_eq!(read.collect::<Vec<_>>(), wanted);
    }
}
