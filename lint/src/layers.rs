//! The layers of a crate's top-level modules, by its `layers.txt`, and of the modules of a folder that has one of its own.
//!
//! The file has a row for each layer, the highest first, each with the names of its modules. A module imports modules
//! of lower rows only. `exempt:` names modules that import anything; `adapters:` names modules of which none imports
//! another. In a folder, a module imports the others by their own names, never by what the folder's module re-exports.

use std::collections::{BTreeMap, BTreeSet};

use crate::cycles::{self, Edges};
use crate::violation::{Place, Report, Violation};
use crate::workspace::{Found, Layered, Workspace};

/// Checks every crate and folder that has a `layers.txt`.
pub(crate) fn check(workspace: &Workspace) -> Report {
    let mut report = Report::default();
    let mut summaries = Vec::new();
    for layered in workspace.layered() {
        let check = Check::new(layered);
        report.violations.extend(check.violations());
        summaries.push(check.summary());
    }
    report.summary = match summaries.as_slice() {
        [] => "layers: no crate has a layers.txt".to_owned(),
        _ => format!("layers: {}", summaries.join("; ")),
    };
    report
}

/// The content of a `layers.txt`.
#[derive(Debug, Default)]
struct Layers {
    exempt: BTreeMap<String, usize>,
    adapters: BTreeMap<String, usize>,
    rows: Vec<Row>,
    /// Lines with an unknown key.
    unknown: Vec<(usize, String)>,
}

#[derive(Debug)]
struct Row {
    line: usize,
    names: Vec<String>,
}

impl Layers {
    fn parse(text: &str) -> Self {
        let mut layers = Self::default();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.split('#').next().unwrap_or_default();
            let (key, names) =
                text.split_once(':').map_or((None, text), |(key, names)| (Some(key.trim()), names));
            let names = names.split_whitespace().map(str::to_owned);
            match key {
                Some("exempt") => layers.exempt.extend(names.map(|name| (name, line))),
                Some("adapters") => layers.adapters.extend(names.map(|name| (name, line))),
                Some(key) => layers.unknown.push((line, key.to_owned())),
                None => layers.rows.push(Row { line, names: names.collect() }),
            }
        }
        layers.rows.retain(|row| !row.names.is_empty());
        layers
    }

    /// The rows that a module stands in, the highest first; a name that a row has twice counts twice.
    fn rows_of<'a>(&'a self, module: &'a str) -> impl Iterator<Item = usize> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(move |(index, row)| {
            row.names.iter().filter(move |name| *name == module).map(move |_| index)
        })
    }

    /// All names, each with the line that it stands on.
    fn names(&self) -> BTreeSet<(&str, usize)> {
        let rows = self.rows.iter().flat_map(|row| row.names.iter().map(|name| (name.as_str(), row.line)));
        let others = self.exempt.iter().chain(&self.adapters).map(|(name, line)| (name.as_str(), *line));
        rows.chain(others).collect()
    }

    /// The rule that an import breaks.
    fn breach(&self, from: &str, to: &str) -> Option<&'static str> {
        let row = |module| self.rows_of(module).next();
        if from == to || self.exempt.contains_key(from) {
            return None;
        }
        if self.adapters.contains_key(from) && self.adapters.contains_key(to) {
            return Some("which is another adapter");
        }
        match (row(from), row(to)) {
            (_, None) if self.exempt.contains_key(to) => Some("which only exempt modules may import"),
            (Some(from), Some(to)) if to == from => Some("which is in its own row"),
            (Some(from), Some(to)) if to < from => Some("which is in a row above"),
            _ => None,
        }
    }
}

/// The modules of one crate or folder beside their layers.
struct Check<'a> {
    layers: Layers,
    /// Path of the `layers.txt`.
    file: &'a str,
    /// The modules, each with the path of its first file.
    modules: BTreeMap<&'a str, &'a str>,
    /// The imports of modules, and of the whole root.
    imports: Vec<Found<'a>>,
    /// The imports of other names of a folder's module.
    reexports: Vec<Found<'a>>,
}

impl<'a> Check<'a> {
    fn new(layered: Layered<'a>) -> Self {
        let modules: BTreeMap<&str, &str> = layered.modules().collect();
        let is_module = |import: &Found<'_>| import.name == "*" || modules.contains_key(import.name.as_str());
        let (mut imports, mut reexports): (Vec<_>, Vec<_>) =
            layered.imports().into_iter().partition(is_module);
        imports.retain(|import| import.name != import.top);
        if !layered.is_nested() {
            reexports.clear();
        }
        Self { layers: Layers::parse(layered.text()), file: layered.path(), modules, imports, reexports }
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = self.faults_of_file();
        violations.extend(self.faults_of_modules());
        violations.extend(self.faults_of_imports());
        violations.extend(cycles::violations(&self.edges()));
        violations
    }

    fn summary(&self) -> String {
        let (modules, rows) = (self.modules.len(), self.layers.rows.len());
        format!("{}: {modules} modules, {rows} rows, {} import edges", self.file, self.edges().len())
    }

    fn faults_of_file(&self) -> Vec<Violation> {
        let unknown_keys = self.layers.unknown.iter().map(|(line, key)| {
            self.place(*line).violation(format!("{key:?} is neither `exempt` nor `adapters`"))
        });
        let unknown_names =
            self.layers.names().into_iter().filter(|(name, _)| !self.modules.contains_key(name));
        unknown_keys
            .chain(
                unknown_names
                    .map(|(name, line)| self.place(line).violation(format!("{name} is no module here"))),
            )
            .collect()
    }

    fn faults_of_modules(&self) -> Vec<Violation> {
        let fault = |(module, path): (&&str, &&str)| {
            let rows: Vec<usize> = self.layers.rows_of(module).collect();
            match rows.as_slice() {
                [] if self.layers.exempt.contains_key(*module) => None,
                [] => Some(Place::new(*path, 1).violation(format!("{module} is in no row of {}", self.file))),
                [_] => None,
                [.., last] => {
                    let line = self.layers.rows.get(*last).map_or(0, |row| row.line);
                    Some(self.place(line).violation(format!("{module} is in more than one row")))
                }
            }
        };
        self.modules.iter().filter_map(fault).collect()
    }

    fn faults_of_imports(&self) -> Vec<Violation> {
        let mut violations = BTreeSet::new();
        for Found { top, name, place } in &self.imports {
            if name == "*" {
                if !self.layers.exempt.contains_key(*top) {
                    violations.insert(place.violation(format!("{top} imports the whole root of the crate")));
                }
            } else if let Some(breach) = self.layers.breach(top, name) {
                violations.insert(place.violation(format!("{top} imports {name}, {breach}")));
            }
        }
        for Found { top, name, place } in &self.reexports {
            let message =
                format!("{top} imports {name} from the folder's own module: name the module that it is of");
            violations.insert(place.violation(message));
        }
        violations.into_iter().collect()
    }

    /// The first import of each pair of modules.
    fn edges(&self) -> Edges<'_> {
        let mut edges = Edges::new();
        for import in self.imports.iter().filter(|import| import.name != "*") {
            edges.entry((import.top, import.name.as_str())).or_insert(&import.place);
        }
        edges
    }

    fn place(&self, line: usize) -> Place {
        Place::new(self.file, line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    const LAYERS: &str = "# highest first\nexempt: app lib\n\nrest grpc # wires\nadapters: rest grpc console\n\
                          console\napi\nmodel tools\n";

    /// The violations of a crate that has all modules of [`LAYERS`], with the given texts for some of them.
    fn violations(layers: &str, sources: &[(&str, &str)]) -> Vec<String> {
        let given = |path| sources.iter().any(|(given, _)| *given == path);
        let mut all = sources.to_vec();
        for path in ["app.rs", "lib.rs", "rest.rs", "grpc.rs", "console.rs", "api.rs", "model.rs", "tools.rs"]
        {
            if !given(path) {
                all.push((path, ""));
            }
        }
        let report = check(&examples::layered(layers, &all));
        report.violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn legal_code_passes() {
        let api = "//! Not [`crate::app`].\nuse crate::{model::{Model, a::B}, tools, Unknown, api::own};\n\
                   /* crate::rest /* crate::grpc */ crate::app */\n\
                   const T: &str = \"crate::rest\"; const R: &str = r#\"\"crate::rest\"#;\n\
                   fn f<'a>(x: &'a str) -> char { crate::model::f::<'a>('\"'); '\\'' } // crate::rest\n\
                   #[cfg(test)] use crate::rest::Rest;\n#[cfg(test)] fn g() { crate::rest::h() }\n\
                   mod inner { use super::*; use super::super::model; }\n\
                   #[cfg(test)] mod tests { use crate::app; fn f() { super::super::grpc::f() } }\n\
                   #[cfg(test)] mod more;\n";
        let sources =
            [("api.rs", api), ("api/more.rs", "use crate::app;"), ("app.rs", "use crate::{rest, api};")];
        assert_eq!(violations(LAYERS, &sources), [""; 0]);
    }

    #[test]
    fn the_summary_counts() {
        let report = check(&examples::layered("a\nb\n", &[("a.rs", "use crate::{b, b::c};"), ("b.rs", "")]));
        assert_eq!(report.summary, "layers: c/layers.txt: 2 modules, 2 rows, 1 import edges");
        assert_eq!(check(&examples::workspace(&[])).summary, "layers: no crate has a layers.txt");
    }

    #[test]
    fn an_import_of_a_row_above_is_found() {
        let expected = "c/src/model.rs:2: model imports api, which is in a row above";
        for text in [
            "\nuse crate::api::Api;",
            "use crate::{\ntools_::x, api};".replace("tools_", "unknown").as_str(),
            "\nfn f() { super::api::f() }",
            "\nmacro_rules! m { () => { $crate::api::f() } }",
            "\nmod x { use super::super::api; }",
            "#[cfg(test)] mod tests {}\nuse crate::api;",
        ] {
            assert_eq!(violations(LAYERS, &[("model.rs", text)]), [expected], "{text}");
        }
        let nested = violations(LAYERS, &[("model/a.rs", "use super::super::api;\nuse super::api;")]);
        assert_eq!(nested, ["c/src/model/a.rs:1: model imports api, which is in a row above"]);
    }

    #[test]
    fn an_import_in_the_own_row_is_found() {
        let found = violations(LAYERS, &[("model.rs", "use crate::{tools};")]);
        assert_eq!(found, ["c/src/model.rs:1: model imports tools, which is in its own row"]);
    }

    #[test]
    fn adapters_never_import_each_other() {
        let found =
            violations(LAYERS, &[("rest.rs", "use crate::console;"), ("grpc.rs", "use crate::rest;")]);
        assert_eq!(
            found,
            [
                "c/src/grpc.rs:1: grpc imports rest, which is another adapter",
                "c/src/rest.rs:1: rest imports console, which is another adapter",
            ]
        );
    }

    #[test]
    fn exempt_modules_are_imported_by_exempt_ones_alone() {
        let found = violations(LAYERS, &[("lib.rs", "use crate::app;"), ("rest.rs", "use crate::app;")]);
        assert_eq!(found, ["c/src/rest.rs:1: rest imports app, which only exempt modules may import"]);
        let listed = LAYERS.replace("api\n", "api\napp\n");
        assert_eq!(violations(&listed, &[("rest.rs", "use crate::app;")]), [""; 0]);
        let upward = violations(&listed, &[("model.rs", "use crate::app;")]);
        assert_eq!(upward, ["c/src/model.rs:1: model imports app, which is in a row above"]);
    }

    #[test]
    fn an_import_of_the_whole_root_is_found() {
        let found = violations(LAYERS, &[("model.rs", "use super::*;"), ("lib.rs", "use crate::*;")]);
        assert_eq!(found, ["c/src/model.rs:1: model imports the whole root of the crate"]);
    }

    #[test]
    fn file_and_modules_agree() {
        let layers = format!("{LAYERS}nowhere\nmodel\nother: tools\n").replace("api\n", "");
        assert_eq!(
            violations(&layers, &[]),
            [
                "c/layers.txt:10: \"other\" is neither `exempt` nor `adapters`",
                "c/layers.txt:8: nowhere is no module here",
                "c/src/api.rs:1: api is in no row of c/layers.txt",
                "c/layers.txt:9: model is in more than one row",
            ]
        );
    }

    #[test]
    fn a_folder_has_layers_of_its_own() {
        let found = |upper: &str, lower: &str| {
            let workspace = examples::workspace(&[
                ("c/Cargo.toml", ""),
                ("c/src/a/layers.txt", "upper\nlower\n"),
                ("c/src/a/mod.rs", "mod upper; mod lower; pub use self::{lower::L, upper::U};"),
                ("c/src/a/upper.rs", upper),
                ("c/src/a/lower/mod.rs", ""),
                ("c/src/a/lower/deep.rs", lower),
                ("c/src/b.rs", "use crate::a::upper;"),
            ]);
            let report = check(&workspace);
            report.violations.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let up = "use super::lower; use crate::{a::lower::L, b};";
        assert_eq!(found(up, "use super::L; use crate::b;"), [""; 0]);
        let upward = "c/src/a/lower/deep.rs:1: lower imports upper, which is in a row above";
        for text in
            ["use super::super::upper;", "use crate::a::{upper::{U, V}};", "use crate::{b, a::upper};"]
        {
            assert_eq!(found("", text), [upward], "{text}");
        }
        assert_eq!(
            found("", "use crate::a::U;"),
            [
                "c/src/a/lower/deep.rs:1: lower imports U from the folder's own module: name the module that it is of"
            ]
        );
    }

    #[test]
    fn a_cycle_is_found_whatever_the_rows_say() {
        let sources = [("api.rs", "use crate::model;"), ("model.rs", "\nuse crate::api;")];
        let found = violations(&LAYERS.replace("app lib", "app lib model"), &sources);
        assert_eq!(
            found,
            ["c/src/api.rs:1: cycle api -> model -> api (api imports model at c/src/api.rs:1, \
             model imports api at c/src/model.rs:2)"]
        );
    }
}
