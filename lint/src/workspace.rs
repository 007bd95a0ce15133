//! The crates of the repository and their sources, as they lie on disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use crate::scope::{self, Declaration, Import};
use crate::source::Source;
use crate::test_code;
use crate::violation::Place;

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
    /// The text of `layers.txt`, where the crate has one.
    pub(crate) layers: Option<String>,
    pub(crate) files: Vec<File>,
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
    /// The top-level module; `lib` and `main` for the crate's roots.
    top: String,
    /// Path from the crate's root.
    path: Vec<String>,
    /// Tells for each token if it is test code.
    test: Vec<bool>,
}

/// A name in production code.
#[derive(Clone, Debug)]
pub(crate) struct Found<'a> {
    /// The top-level module of the name.
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

    /// The crates that have a file `layers.txt`, with its text.
    pub(crate) fn layered(&self) -> impl Iterator<Item = (&Crate, &str)> {
        self.crates.iter().filter_map(|krate| Some((krate, krate.layers.as_deref()?)))
    }
}

fn read_crate(root: &Path, folder: &str, crates: &mut Vec<Crate>) -> io::Result<()> {
    let layers = join(folder, "layers.txt");
    let layers = root.join(&layers).is_file().then(|| read(root, &layers)).transpose()?;
    let shown = if folder.is_empty() { "." } else { folder };
    let mut krate = Crate { folder: shown.to_owned(), layers, files: Vec::new() };
    read_folder(root, folder, &mut krate, crates)?;
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

impl Crate {
    /// Path of a file of the crate's folder.
    pub(crate) fn path(&self, name: &str) -> String {
        join(if self.folder == "." { "" } else { &self.folder }, name)
    }

    /// The top-level modules with production code, each with the path of its first file.
    pub(crate) fn modules(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut seen = BTreeSet::new();
        self.files.iter().filter_map(move |file| {
            let module = file.module.as_ref()?;
            let is_test = !module.test.is_empty() && module.test.iter().all(|test| *test);
            (!is_test && seen.insert(&module.top)).then_some((module.top.as_str(), file.path.as_str()))
        })
    }

    /// The paths in production code that lead to a name at the crate's root.
    pub(crate) fn imports(&self) -> Vec<Found<'_>> {
        self.find(|file, module| {
            let imports = scope::imports(&file.source.tokens, &module.path);
            imports.into_iter().map(|Import { name, at }| (name, at)).collect()
        })
    }

    /// The types that production code declares.
    pub(crate) fn declarations(&self) -> Vec<Found<'_>> {
        self.find(|file, _| {
            let declarations = scope::declarations(&file.source.tokens);
            declarations.into_iter().map(|Declaration { name, at }| (name, at)).collect()
        })
    }

    /// The names that `names` finds in each module's file, where they are no test code.
    fn find(&self, names: impl Fn(&File, &Module) -> Vec<(String, usize)>) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for file in &self.files {
            let Some(module) = &file.module else { continue };
            let production = names(file, module).into_iter().filter(|(_, at)| !module.is_test(*at));
            found.extend(production.map(|(name, at)| {
                let place = Place::new(&file.path, file.source.tokens.line(at));
                Found { top: &module.top, name, place }
            }));
        }
        found
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
            .map(|(top, path)| Module { top, path, test: test_code::mask(&source.tokens) });
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
    fn is_test(&self, at: usize) -> bool {
        self.test.get(at).copied().unwrap_or_default()
    }
}

/// The top-level module and the whole module path of a file below `src/`; nothing for further binaries.
fn module_path(path: &str) -> Option<(String, Vec<String>)> {
    let path = path.strip_suffix(".rs")?;
    let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
    let (first, is_nested) = (names.first()?.clone(), names.len() > 1);
    match (first.as_str(), is_nested) {
        ("bin", true) => return None,
        ("lib" | "main", false) => names.clear(),
        _ if is_nested && path.ends_with("/mod") => {
            names.pop();
        }
        _ => {}
    }
    Some((first, names))
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
        let found = |path| module_path(path).map(|(top, path)| (top, path.join("::")));
        let module = |top: &str, path: &str| Some((top.to_owned(), path.to_owned()));
        assert_eq!(found("lib.rs"), module("lib", ""));
        assert_eq!(found("a.rs"), module("a", "a"));
        assert_eq!(found("a/mod.rs"), module("a", "a"));
        assert_eq!(found("a/b/c.rs"), module("a", "a::b::c"));
        assert_eq!(found("a/main.rs"), module("a", "a::main"));
        assert_eq!(found("bin/a.rs"), None);
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
        let (krate, _) = workspace.layered().next().unwrap();
        let imports: Vec<String> = krate.imports().into_iter().map(|import| import.name).collect();
        assert_eq!(imports, ["e"]);
        assert_eq!(krate.modules().map(|(top, _)| top).collect::<Vec<_>>(), ["a", "lib"]);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nowhere"), "lint/names.txt").unwrap_err();
        assert!(error.to_string().contains("lint/names.txt"), "{error}");
    }
}
