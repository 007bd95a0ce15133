//! The imports and type declarations of a source, with their inline modules.

use crate::source::Tokens;

/// Keywords that determine the kind of the next block; the first one of a header counts.
const HEADERS: [&str; 12] =
    ["mod", "impl", "trait", "fn", "struct", "enum", "union", "type", "const", "static", "let", "use"];

/// A path that leads to a root, which is the crate's or a module's, and on to a name there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name at the root; `*` for all of them.
    pub(crate) name: String,
    pub(crate) at: usize,
}

/// The name of a struct, enum, trait or type alias.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) at: usize,
}

/// A declaration `mod name;` of a module with a file of its own.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModuleFile {
    /// The module's path from the crate's root.
    pub(crate) path: Vec<String>,
    pub(crate) at: usize,
}

/// Finds the paths in a source of the module `module` that lead to names of the module `root`; empty: of the crate's root.
pub(crate) fn imports(tokens: &Tokens, module: &[String], root: &[String]) -> Vec<Import> {
    let mut imports = Vec::new();
    let follow = |at, base: &[String], imports: &mut Vec<Import>| {
        follow(Path { tokens, root }, at, base, imports);
    };
    walk(tokens, |scope, at| {
        let continues = at.checked_sub(1).is_some_and(|before| tokens.is_separator(before));
        if continues || !tokens.is_separator(at + 1) {
            return;
        }
        let own = || module.iter().cloned().chain(scope.modules()).collect::<Vec<_>>();
        match tokens.word(at) {
            Some("crate") => follow(at + 2, &[], &mut imports),
            Some("self" | "super") => follow(at, &own(), &mut imports),
            _ => {}
        }
    });
    imports
}

/// Source that paths are followed in, and the module that they should lead to.
#[derive(Clone, Copy)]
struct Path<'a> {
    tokens: &'a Tokens,
    root: &'a [String],
}

/// Follows a path or a tree of paths from the module `base`, until it names something at the root.
fn follow(path: Path<'_>, at: usize, base: &[String], imports: &mut Vec<Import>) {
    let Path { tokens, root } = path;
    if tokens.is(at, '{') {
        return follow_group(path, at, base, imports);
    }
    match tokens.word(at) {
        Some("self") if tokens.is_separator(at + 1) => follow(path, at + 2, base, imports),
        Some("super") if tokens.is_separator(at + 1) => {
            if let Some((_, parent)) = base.split_last() {
                follow(path, at + 2, parent, imports);
            }
        }
        Some("self" | "super") => {}
        Some(name) if base == root => imports.push(Import { name: name.to_owned(), at }),
        Some(name) if leads_to(base, name, root) && tokens.is_separator(at + 1) => {
            let base: Vec<String> = base.iter().cloned().chain([name.to_owned()]).collect();
            follow(path, at + 2, &base, imports);
        }
        None if base == root && tokens.is(at, '*') => imports.push(Import { name: "*".to_owned(), at }),
        _ => {}
    }
}

/// True if the module `name` of `base` is on the way to `root`.
fn leads_to(base: &[String], name: &str, root: &[String]) -> bool {
    root.strip_prefix(base).and_then(<[String]>::first).is_some_and(|next| next == name)
}

fn follow_group(path: Path<'_>, open: usize, base: &[String], imports: &mut Vec<Import>) {
    let end = path.tokens.end_of_group(open + 1);
    let mut at = open + 1;
    while at < end {
        follow(path, at, base, imports);
        at = end_of_element(path.tokens, at, end) + 1;
    }
}

/// The index of the comma behind a group's element, or of the group's closing bracket.
fn end_of_element(tokens: &Tokens, start: usize, end: usize) -> usize {
    let mut at = start;
    while at < end && !tokens.is(at, ',') {
        at = if tokens.is(at, '{') { tokens.end_of_group(at + 1) + 1 } else { at + 1 };
    }
    at
}

/// Finds the declared types; the associated types of traits and their implementations are none.
pub(crate) fn declarations(tokens: &Tokens) -> Vec<Declaration> {
    let mut declarations = Vec::new();
    walk(tokens, |scope, at| {
        let is_parameter = at.checked_sub(1).is_some_and(|before| tokens.is(before, '$'));
        let declares = match tokens.word(at) {
            Some("struct" | "enum" | "trait") => !is_parameter,
            Some("type") => !is_parameter && !scope.is_associated(),
            _ => false,
        };
        if let Some(name) = tokens.word(at + 1).filter(|_| declares) {
            declarations.push(Declaration { name: name.to_owned(), at: at + 1 });
        }
    });
    declarations
}

/// Finds the modules that a source of the module `module` declares with files of their own.
pub(crate) fn module_files(tokens: &Tokens, module: &[String]) -> Vec<ModuleFile> {
    let mut files = Vec::new();
    walk(tokens, |scope, at| {
        if let (Some("mod"), Some(name), true) =
            (tokens.word(at), tokens.word(at + 1), tokens.is(at + 2, ';'))
        {
            let path = module.iter().cloned().chain(scope.modules()).chain([name.to_owned()]).collect();
            files.push(ModuleFile { path, at });
        }
    });
    files
}

/// The groups around a token.
#[derive(Default)]
struct Scope {
    groups: Vec<Group>,
    header: Option<Group>,
}

#[derive(Clone)]
enum Group {
    /// The block of an inline module.
    Module(String),
    /// The block of a trait or an implementation.
    Associated,
    Block,
    /// Parentheses or square brackets.
    Bracket,
}

fn walk(tokens: &Tokens, mut visit: impl FnMut(&Scope, usize)) {
    let mut scope = Scope::default();
    for at in 0..tokens.len() {
        visit(&scope, at);
        scope.step(tokens, at);
    }
}

impl Scope {
    /// The names of the inline modules, the outermost first.
    fn modules(&self) -> impl Iterator<Item = String> {
        self.groups.iter().filter_map(|group| match group {
            Group::Module(name) => Some(name.clone()),
            _ => None,
        })
    }

    fn is_associated(&self) -> bool {
        matches!(self.groups.last(), Some(Group::Associated))
    }

    fn step(&mut self, tokens: &Tokens, at: usize) {
        match tokens.mark(at) {
            Some('(' | '[') => self.groups.push(Group::Bracket),
            Some('{') => self.groups.push(self.header.take().unwrap_or(Group::Block)),
            Some(')' | ']') => {
                self.groups.pop();
            }
            Some('}') => {
                self.groups.pop();
                self.header = None;
            }
            Some(';') if !matches!(self.groups.last(), Some(Group::Bracket)) => self.header = None,
            _ => self.read_header(tokens, at),
        }
    }

    fn read_header(&mut self, tokens: &Tokens, at: usize) {
        let Some(word) = tokens.word(at).filter(|word| HEADERS.contains(word)) else { return };
        if self.header.is_none() {
            self.header = Some(match (word, tokens.word(at + 1)) {
                ("mod", Some(name)) => Group::Module(name.to_owned()),
                ("impl" | "trait", _) => Group::Associated,
                _ => Group::Block,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn imported(module: &[&str], text: &str) -> Vec<String> {
        imported_from(&[], module, text)
    }

    fn imported_from(root: &[&str], module: &[&str], text: &str) -> Vec<String> {
        let [root, module] =
            [root, module].map(|path| path.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        imports(&Source::scan(text).tokens, &module, &root).into_iter().map(|import| import.name).collect()
    }

    fn declared(text: &str) -> Vec<String> {
        declarations(&Source::scan(text).tokens).into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn paths_and_trees_from_the_root_are_found() {
        let text = "use crate::{a::{A, b::{B, c}, d}, e,\n f::{self, *},\n {g::G}};\n\
                    pub(crate) fn x() -> crate::h::H { $crate::i::i!(crate :: j :: J) }\n\
                    use {crate::k, std::l, x::crate_::m}; pub(in crate::n) struct S; use crate::*;";
        assert_eq!(imported(&["x"], text), ["a", "e", "f", "g", "h", "i", "j", "k", "n", "*"]);
    }

    #[test]
    fn paths_that_climb_to_the_root_are_found() {
        assert_eq!(
            imported(&["x"], "use super::a; use self::super::{b::B, c}; use self::d; super::e()"),
            ["a", "b", "c", "e"]
        );
        assert_eq!(
            imported(&["x", "y"], "use super::a; use super::super::b; use super::{super::c, d};"),
            ["b", "c"]
        );
        assert_eq!(
            imported(&["x"], "mod y { use super::a; use super::super::b; } use super::c;"),
            ["b", "c"]
        );
        assert_eq!(imported(&["x"], "use super::*; mod tests { use super::*; }"), ["*"]);
        assert_eq!(imported(&[], "mod y { use super::a; } fn f(self) { self.b(); super::nowhere() }"), ["a"]);
    }

    #[test]
    fn paths_to_the_names_of_a_module_are_found() {
        let text = "use crate::{x::{a::A, b}, y::c, x}; use crate::x::{self, d::{D, e}}; crate::x::y::F; crate::x::*;";
        assert_eq!(imported_from(&["x"], &["x", "z"], text), ["a", "b", "d", "y", "*"]);
        assert_eq!(imported_from(&["x", "y"], &["x", "y", "z"], text), ["F"]);
        let climbing = "use super::a; use super::super::{b, x::c}; use self::d; use super::{e::E, *};";
        assert_eq!(imported_from(&["x"], &["x", "z"], climbing), ["a", "c", "e", "*"]);
        assert_eq!(imported_from(&["x"], &["x", "z", "w"], "use super::a; use super::super::b;"), ["b"]);
    }

    #[test]
    fn types_are_declared_by_items_alone() {
        let text = "pub struct A<T>(T); enum B { C } unsafe trait D { type E; fn f() { type F = u8; } }\n\
                    impl Iterator for [A; 3] { type Item = A; } pub type G = A; fn h() -> impl D { struct H; }\n\
                    macro_rules! m { ($struct:ident $x:ident) => { struct $x; } } let r#type = x; mod n { type I = A; }";
        assert_eq!(declared(text), ["A", "B", "D", "F", "G", "H", "I"]);
    }

    #[test]
    fn modules_with_files_have_their_whole_path() {
        let text = "mod a; mod b { mod c; mod d {} } pub(crate) mod e;";
        let found = module_files(&Source::scan(text).tokens, &["x".to_owned()]);
        let paths: Vec<String> = found.iter().map(|file| file.path.join("::")).collect();
        assert_eq!(paths, ["x::a", "x::b::c", "x::e"]);
    }
}
