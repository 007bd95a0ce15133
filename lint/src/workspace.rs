//! The crates of the repository and their sources, as they lie on disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use crate::scope::{self, Declaration, Import};
use crate::source::Source;
use crate::test_code;
use crate::violation::Place;

/// Name of the file with the layers of a crate's top-level modules, or of the modules of one folder.
const LAYERS: &str = "layers.txt";

/// The repository's crates, by folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) crates: Vec<Crate>,
}

/// A folder with a `Cargo.toml`, and the sources that lie closer to it than to any other.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Relative to the repository's root, which itself is `.`.
    pub(crate) folder: String,
    /// The crate's own `layers.txt` and those of folders of its sources.
    layers: Vec<LayersFile>,
    pub(crate) files: Vec<File>,
}

/// A `layers.txt`.
#[derive(Debug)]
struct LayersFile {
    /// Relative to the repository's root.
    path: String,
    /// Path of the module whose modules it orders; empty for the crate's root.
    root: Vec<String>,
    text: String,
}

/// Modules that a `layers.txt` orders: the top-level ones of a crate, or those of one module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layered<'a> {
    krate: &'a Crate,
    file: &'a LayersFile,
}

/// A source file.
#[derive(Debug)]
pub(crate) struct File {
    /// Relative to the repository's root.
    pub(crate) path: String,
    pub(crate) source: Source,
    /// Absent for files outside the crate's modules: build scripts, tests, further binaries.
    module: Option<Module>,
}

/// Place of a file in its crate's tree of modules.
#[derive(Debug)]
struct Module {
    /// Path from the crate's root.
    path: Vec<String>,
    /// `lib` or `main` for the crate's roots.
    crate_root: Option<String>,
    /// Tells for each token if it is test code.
    test: Vec<bool>,
}

/// A name in production code.
#[derive(Clone, Debug)]
pub(crate) struct Found<'a> {
    /// The layered module that it stands in.
    pub(crate) top: &'a str,
    pub(crate) name: String,
    pub(crate) place: Place,
}

impl Workspace {
    /// Reads all sources below a folder, except hidden folders and cargo's targets.
    ///
    /// # Errors
    /// A file or folder that cannot be read, by its path.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut crates = Vec::new();
        read_crate(root, "", &mut crates)?;
        crates.sort_by(|one, other| one.folder.cmp(&other.folder));
        Ok(Self { crates })
    }

    /// The crates and modules that have a `layers.txt`, by its path.
    pub(crate) fn layered(&self) -> impl Iterator<Item = Layered<'_>> {
        self.crates.iter().flat_map(|krate| krate.layers.iter().map(move |file| Layered { krate, file }))
    }
}

fn read_crate(root: &Path, folder: &str, crates: &mut Vec<Crate>) -> io::Result<()> {
    let shown = if folder.is_empty() { "." } else { folder };
    let mut krate = Crate { folder: shown.to_owned(), layers: Vec::new(), files: Vec::new() };
    read_folder(root, folder, &mut krate, crates)?;
    krate.layers.sort_by(|one, other| one.root.cmp(&other.root));
    krate.mark_test_files();
    crates.push(krate);
    Ok(())
}

/// Adds the sources of a folder to its crate, and the crates inside it to `crates`.
fn read_folder(root: &Path, folder: &str, krate: &mut Crate, crates: &mut Vec<Crate>) -> io::Result<()> {
    let full = root.join(folder);
    let is_crate_root = full.join("Cargo.toml").is_file();
    let entries = fs::read_dir(&full).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(|error| with_path(&full, &error))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = join(folder, &name);
        let kind = entry.file_type().map_err(|error| with_path(&entry.path(), &error))?;
        if kind.is_file() && name.ends_with(".rs") {
            krate.files.push(File::scan(&read(root, &path)?, path, &krate.folder));
        } else if kind.is_file() && name == LAYERS {
            if let Some(module) = layered_module(&krate.folder, folder) {
                krate.layers.push(LayersFile { text: read(root, &path)?, path, root: module });
            }
        } else if !kind.is_dir() || name.starts_with('.') || (is_crate_root && name == "target") {
            continue;
        } else if root.join(&path).join("Cargo.toml").is_file() {
            read_crate(root, &path, crates)?;
        } else {
            read_folder(root, &path, krate, crates)?;
        }
    }
    Ok(())
}

/// Reads a file of the repository.
///
/// # Errors
/// [`io::Error`] that names the file.
pub(crate) fn read(root: &Path, path: &str) -> io::Result<String> {
    fs::read_to_string(root.join(path)).map_err(|error| with_path(Path::new(path), &error))
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl<'a> Layered<'a> {
    /// Path of the `layers.txt`, relative to the repository's root.
    pub(crate) fn path(self) -> &'a str {
        &self.file.path
    }

    /// Folder of the `layers.txt`; `.` for the repository's root.
    pub(crate) fn folder(self) -> &'a str {
        self.file.path.rsplit_once('/').map_or(".", |(folder, _)| folder)
    }

    /// Text of the `layers.txt`.
    pub(crate) fn text(self) -> &'a str {
        &self.file.text
    }

    /// True for the modules of one module, false for those of a crate.
    pub(crate) fn is_nested(self) -> bool {
        !self.file.root.is_empty()
    }

    /// The modules with production code, each with the path of its first file.
    pub(crate) fn modules(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.krate.modules_of(&self.file.root)
    }

    /// The paths in production code that lead to a name at the root of the modules.
    pub(crate) fn imports(self) -> Vec<Found<'a>> {
        self.find(|file, module| {
            let imports = scope::imports(&file.source.tokens, &module.path, &self.file.root);
            imports.into_iter().map(|Import { name, at }| (name, at)).collect()
        })
    }

    /// The types that production code declares.
    pub(crate) fn declarations(self) -> Vec<Found<'a>> {
        self.find(|file, _| {
            let declarations = scope::declarations(&file.source.tokens);
            declarations.into_iter().map(|Declaration { name, at }| (name, at)).collect()
        })
    }

    /// The names that `names` finds in each module's file, where they are no test code.
    fn find(self, names: impl Fn(&File, &Module) -> Vec<(String, usize)>) -> Vec<Found<'a>> {
        let mut found = Vec::new();
        for file in &self.krate.files {
            let Some(module) = &file.module else { continue };
            let Some(top) = module.below(&self.file.root) else { continue };
            let production = names(file, module).into_iter().filter(|(_, at)| !module.is_test(*at));
            found.extend(production.map(|(name, at)| {
                let place = Place::new(&file.path, file.source.tokens.line(at));
                Found { top, name, place }
            }));
        }
        found
    }
}

impl Crate {
    /// Path of a file in the crate's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.folder == "." { name.to_owned() } else { join(&self.folder, name) }
    }

    /// True if its top-level modules have layers.
    pub(crate) fn has_layers(&self) -> bool {
        self.layers.iter().any(|file| file.root.is_empty())
    }

    /// The top-level modules with production code, each with the path of its first file.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&str, &str)> {
        self.modules_of(&[])
    }

    fn modules_of<'a>(&'a self, root: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut seen = BTreeSet::new();
        self.files.iter().filter_map(move |file| {
            let module = file.module.as_ref()?;
            let name = module.below(root)?;
            let is_test = !module.test.is_empty() && module.test.iter().all(|test| *test);
            (!is_test && seen.insert(name)).then_some((name, file.path.as_str()))
        })
    }

    /// Marks the files of modules that are declared for tests alone, with all modules below them.
    fn mark_test_files(&mut self) {
        let test_modules: Vec<Vec<String>> = self.files.iter().flat_map(File::test_modules).collect();
        for module in self.files.iter_mut().filter_map(|file| file.module.as_mut()) {
            if test_modules.iter().any(|test| module.path.starts_with(test)) {
                module.test.fill(true);
            }
        }
    }
}

impl File {
    fn scan(text: &str, path: String, folder: &str) -> Self {
        let source = Source::scan(text);
        let inside = if folder == "." { Some(path.as_str()) } else { path.strip_prefix(folder) };
        let module = inside
            .and_then(|path| path.trim_start_matches('/').strip_prefix("src/"))
            .and_then(module_path)
            .map(|(crate_root, path)| Module { path, crate_root, test: test_code::mask(&source.tokens) });
        Self { path, source, module }
    }

    /// The paths of modules with files of their own that this file declares for tests alone.
    fn test_modules(&self) -> Vec<Vec<String>> {
        let Some(module) = &self.module else { return Vec::new() };
        let declared = scope::module_files(&self.source.tokens, &module.path).into_iter();
        declared.filter(|file| module.is_test(file.at)).map(|file| file.path).collect()
    }
}

impl Module {
    /// The module of `root` that this is, or that it is below of; for the crate's root itself `lib` or `main`.
    fn below(&self, root: &[String]) -> Option<&str> {
        match self.path.strip_prefix(root)?.first() {
            Some(name) => Some(name),
            None if root.is_empty() => self.crate_root.as_deref(),
            None => None,
        }
    }

    fn is_test(&self, at: usize) -> bool {
        self.test.get(at).copied().unwrap_or_default()
    }
}

/// The module path of a file below `src/`, with `lib` or `main` for the crate's roots; nothing for further binaries.
fn module_path(path: &str) -> Option<(Option<String>, Vec<String>)> {
    let path = path.strip_suffix(".rs")?;
    let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
    let (first, is_nested) = (names.first()?.clone(), names.len() > 1);
    match (first.as_str(), is_nested) {
        ("bin", true) => return None,
        ("lib" | "main", false) => return Some((Some(first), Vec::new())),
        _ if is_nested && path.ends_with("/mod") => {
            names.pop();
        }
        _ => {}
    }
    Some((None, names))
}

/// The module whose modules a `layers.txt` in a folder of the crate orders; empty for the crate's root.
fn layered_module(krate: &str, folder: &str) -> Option<Vec<String>> {
    let inside = if krate == "." { Some(folder) } else { folder.strip_prefix(krate) };
    match inside?.trim_start_matches('/') {
        "" => Some(Vec::new()),
        path => Some(path.strip_prefix("src/")?.split('/').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;

    /// A repository in a temporary folder, made of paths and texts.
    pub(crate) fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in [("Cargo.toml", "[workspace]")].iter().chain(files) {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    pub(crate) fn workspace(files: &[(&str, &str)]) -> Workspace {
        Workspace::read(repository(files).path()).unwrap()
    }

    /// A workspace with one crate `c`, whose sources are given by their paths below `c/src/`.
    pub(crate) fn layered(layers: &str, sources: &[(&str, &str)]) -> Workspace {
        let paths: Vec<String> = sources.iter().map(|(path, _)| format!("c/src/{path}")).collect();
        let sources = paths.iter().zip(sources).map(|(path, (_, text))| (path.as_str(), *text));
        let mut files = vec![("c/Cargo.toml", ""), ("c/layers.txt", layers)];
        files.extend(sources);
        workspace(&files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_belong_to_the_nearest_crate() {
        let workspace = examples::workspace(&[
            ("a/Cargo.toml", ""),
            ("a/src/lib.rs", ""),
            ("a/src/target/x.rs", ""),
            ("a/target/x.rs", ""),
            ("a/b/Cargo.toml", ""),
            ("a/b/tests/x.rs", ""),
            (".git/x.rs", ""),
            ("target/x.rs", ""),
            ("x.rs", ""),
        ]);
        let crates: Vec<(&str, Vec<&str>)> = workspace
            .crates
            .iter()
            .map(|krate| (krate.folder.as_str(), krate.files.iter().map(|file| file.path.as_str()).collect()))
            .collect();
        assert_eq!(
            crates,
            [
                (".", vec!["x.rs"]),
                ("a", vec!["a/src/lib.rs", "a/src/target/x.rs"]),
                ("a/b", vec!["a/b/tests/x.rs"]),
            ]
        );
    }

    #[test]
    fn modules_are_found_by_their_paths() {
        let found = |path| module_path(path).map(|(root, path)| (root.unwrap_or_default(), path.join("::")));
        let module = |root: &str, path: &str| Some((root.to_owned(), path.to_owned()));
        assert_eq!(found("lib.rs"), module("lib", ""));
        assert_eq!(found("a.rs"), module("", "a"));
        assert_eq!(found("a/mod.rs"), module("", "a"));
        assert_eq!(found("a/b/c.rs"), module("", "a::b::c"));
        assert_eq!(found("a/main.rs"), module("", "a::main"));
        assert_eq!(found("bin/a.rs"), None);
    }

    #[test]
    fn layers_of_a_crate_and_of_its_folders_are_found() {
        let workspace = examples::workspace(&[
            ("a/Cargo.toml", ""),
            ("a/layers.txt", "x"),
            ("a/src/x/y/layers.txt", "z"),
            ("a/src/x/y/z/mod.rs", "struct Z;"),
            ("a/src/x/y/mod.rs", "struct Y;"),
            ("a/src/x.rs", "use crate::x::y::z;"),
            ("a/tests/layers.txt", ""),
            ("layers.txt", ""),
        ]);
        let found: Vec<(&str, Vec<&str>)> = workspace
            .layered()
            .map(|layered| (layered.path(), layered.modules().map(|(name, _)| name).collect()))
            .collect();
        let expected =
            [("layers.txt", vec![]), ("a/layers.txt", vec!["x"]), ("a/src/x/y/layers.txt", vec!["z"])];
        assert_eq!(found, expected);
        let nested = workspace.layered().last().unwrap();
        assert_eq!(nested.declarations().into_iter().map(|found| found.name).collect::<Vec<_>>(), ["Z"]);
        assert!(nested.imports().is_empty(), "what is outside of the folder is none of its layers'");
    }

    #[test]
    fn a_module_for_tests_takes_its_files_along() {
        let workspace = examples::layered(
            "",
            &[
                ("lib.rs", "mod a; #[cfg(test)] mod t;"),
                ("t.rs", "use crate::a;"),
                ("a/mod.rs", "#[cfg(test)] mod t; mod u; mod v { #[cfg(test)] mod w; }"),
                ("a/t/mod.rs", "use crate::b;"),
                ("a/t/x.rs", "use crate::c;"),
                ("a/v/w.rs", "use crate::d;"),
                ("a/u.rs", "use crate::e;"),
            ],
        );
        let layered = workspace.layered().next().unwrap();
        let imports: Vec<String> = layered.imports().into_iter().map(|import| import.name).collect();
        assert_eq!(imports, ["e"]);
        assert_eq!(layered.modules().map(|(top, _)| top).collect::<Vec<_>>(), ["a", "lib"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nowhere"), "lint/names.txt").unwrap_err();
        assert!(error.to_string().contains("lint/names.txt"), "{error}");
    }
}
