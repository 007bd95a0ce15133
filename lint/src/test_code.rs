//! Code that is compiled for tests alone: items with `#[cfg(test)]` or `#[test]`.

use crate::source::Tokens;

/// Keywords of items that end with a semicolon, whatever braces they have.
const STATEMENTS: [&str; 4] = ["use", "static", "type", "let"];
/// Keywords of items that end with their body, or with a semicolon.
const ITEMS: [&str; 8] = ["fn", "mod", "struct", "enum", "union", "trait", "impl", "macro_rules"];

/// The end of an attribute's target.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// At the semicolon.
    Statement,
    /// At the semicolon or behind the body.
    Item,
    /// A field, variant, arm or expression: at the comma too.
    Part,
}

/// Tells for each token if it is test code.
pub(crate) fn mask(tokens: &Tokens) -> Vec<bool> {
    let mut mask = vec![false; tokens.len()];
    let mut at = 0;
    while at < tokens.len() {
        let Some((attribute, end)) = attribute(tokens, at) else {
            at += 1;
            continue;
        };
        let last = match attribute {
            Attribute::Other => end,
            Attribute::InnerTest => tokens.end_of_group(at),
            Attribute::OuterTest => end_of_target(tokens, end + 1),
        };
        if attribute != Attribute::Other {
            mask.iter_mut().take(last + 1).skip(at).for_each(|token| *token = true);
        }
        at = last + 1;
    }
    mask
}

#[derive(PartialEq, Eq)]
enum Attribute {
    InnerTest,
    OuterTest,
    Other,
}

/// The attribute that begins at an index, and the index of its closing bracket.
fn attribute(tokens: &Tokens, at: usize) -> Option<(Attribute, usize)> {
    if !tokens.is(at, '#') {
        return None;
    }
    let inner = tokens.is(at + 1, '!');
    let open = at + 1 + usize::from(inner);
    if !tokens.is(open, '[') {
        return None;
    }
    let end = tokens.end_of_group(open + 1);
    let attribute = match (is_test(tokens, open + 1, end), inner) {
        (false, _) => Attribute::Other,
        (true, false) => Attribute::OuterTest,
        (true, true) => Attribute::InnerTest,
    };
    Some((attribute, end))
}

/// Recognizes `cfg(test)`, `cfg(all(test, ...))`, `test` and paths to it such as `tokio::test`.
fn is_test(tokens: &Tokens, start: usize, end: usize) -> bool {
    if tokens.word(start) == Some("cfg") {
        return is_test_predicate(tokens, start + 2);
    }
    let path = (start..end).take_while(|at| tokens.word(*at).is_some() || tokens.is_separator(*at));
    path.last().and_then(|last| tokens.word(last)) == Some("test")
}

fn is_test_predicate(tokens: &Tokens, at: usize) -> bool {
    match tokens.word(at) {
        Some("test") => true,
        Some("all") => {
            let end = tokens.end_of_group(at + 2);
            starts_of_elements(tokens, at + 2, end).any(|element| is_test_predicate(tokens, element))
        }
        _ => false,
    }
}

/// The indexes behind a group's opening bracket and behind each of its own commas.
fn starts_of_elements(tokens: &Tokens, start: usize, end: usize) -> impl Iterator<Item = usize> {
    let mut depth = 0_usize;
    let commas = (start..end).filter(move |at| {
        match tokens.mark(*at) {
            Some('(' | '[' | '{') => depth += 1,
            Some(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && tokens.is(*at, ',')
    });
    std::iter::once(start).chain(commas.map(|comma| comma + 1))
}

/// The index of the last token of that which an attribute belongs to.
fn end_of_target(tokens: &Tokens, start: usize) -> usize {
    let mut start = start;
    while let Some((_, end)) = attribute(tokens, start) {
        start = end + 1;
    }
    let form = form(tokens, start);
    let mut at = start;
    while at < tokens.len() {
        match tokens.mark(at) {
            Some(open @ ('(' | '[' | '{')) => {
                at = tokens.end_of_group(at + 1);
                if open == '{' && form != Form::Statement {
                    return at;
                }
            }
            Some(')' | ']' | '}') => return at.saturating_sub(1),
            Some(';') => return at,
            Some(',') if form == Form::Part => return at,
            _ => {}
        }
        at += 1;
    }
    at
}

fn form(tokens: &Tokens, start: usize) -> Form {
    let mut at = start;
    while let Some(word) = tokens.word(at) {
        match word {
            "const" if !matches!(tokens.word(at + 1), Some("fn" | "unsafe" | "async" | "extern")) => {
                return Form::Statement;
            }
            _ if STATEMENTS.contains(&word) => return Form::Statement,
            _ if ITEMS.contains(&word) => return Form::Item,
            "pub" if tokens.is(at + 1, '(') => at = tokens.end_of_group(at + 2) + 1,
            // The literal behind `extern` is no word.
            "extern" if tokens.word(at + 1).is_none() => at += 2,
            "pub" | "unsafe" | "async" | "extern" | "const" => at += 1,
            _ => return Form::Part,
        }
    }
    Form::Part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    /// The words that are no test code.
    fn production(text: &str) -> String {
        let tokens = Source::scan(text).tokens;
        let mask = mask(&tokens);
        let words = (0..tokens.len()).filter(|at| !mask[*at]).filter_map(|at| tokens.word(at));
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn items_of_every_form_end_where_they_end() {
        for item in [
            "mod x;",
            "mod x { fn a() { {} } }",
            "use a::{b, c::{d}};",
            "pub(in crate::a) use a::{b};",
            "#[allow(unused)] pub(crate) async fn f<A, B>(a: [u8; 3]) -> [u8; 3] { a }",
            "pub const fn f() { a; }",
            "pub unsafe extern \"C\" fn f() { a; }",
            "const A: A = A { a: { 1 } };",
            "impl A for B { type C = D; }",
            "struct A(B, C);",
            "macro_rules! a { () => {} }",
            "let x = { 1 };",
        ] {
            assert_eq!(production(&format!("before; #[cfg(test)] {item} after")), "before after", "{item}");
        }
    }

    #[test]
    fn fields_and_arms_end_at_the_comma() {
        assert_eq!(
            production("struct A { a: B, #[cfg(test)] b: C, d: D, #[cfg(test)] e: E } f"),
            "struct A a B d D f"
        );
        assert_eq!(production("match x { #[cfg(test)] A => b(c, d), E => f }"), "match x E f");
    }

    #[test]
    fn only_predicates_that_need_test_count() {
        assert_eq!(production("#[cfg(all(unix, test))] fn a() {} #[cfg(all(test, b))] fn a() {} c"), "c");
        assert_eq!(production("#[cfg(any(test, a))] x"), "cfg any test a x");
        assert_eq!(production("#[cfg(not(test))] x"), "cfg not test x");
        assert_eq!(production("#[test] fn a() {} #[tokio::test(b = 1)] async fn a() {} c"), "c");
        assert_eq!(production("#[test_case] fn a() {}"), "test_case fn a");
    }

    #[test]
    fn an_inner_attribute_takes_its_block() {
        assert_eq!(production("#![cfg(test)] fn a() {}"), "");
        assert_eq!(production("mod a { #![cfg(test)] b } c"), "mod a c");
        assert_eq!(production("#![allow(test)] fn a() {}"), "allow test fn a");
    }
}
