//! Tables with aligned columns: a row for each resource of a list, or for each field of a resource.

use std::time::SystemTime;

use prost_types::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use super::escape::clean;
use super::style;
use crate::kinds::{Column, Kind};
use crate::names::Names;
use crate::resource::{Resource, show_field};

/// Cell, with the visible width of its text.
pub(super) struct Cell {
    text: String,
    width: usize,
}

impl Cell {
    /// Cell of untrusted text.
    pub(super) fn plain(text: &str) -> Self {
        let text = clean(text).into_owned();
        Self { width: text.width(), text }
    }

    /// Cell of styled text, of which `visible` is visible.
    pub(super) fn painted(text: String, visible: &str) -> Self {
        Self { width: visible.width(), text }
    }

    /// Name of a column or a field.
    pub(super) fn heading(text: &str) -> Self {
        Self::painted(style::painted(style::STRONG, text), text)
    }
}

/// Formats a list, with ids and more columns if it `is_wide`; "nothing found" if it is empty.
pub(crate) fn list(resources: &[Resource], names: &Names, is_wide: bool) -> String {
    let Some(first) = resources.first() else { return "nothing found\n".to_owned() };
    let mut rows = vec![headings(first.kind, is_wide)];
    rows.extend(resources.iter().map(|resource| row(resource, names, is_wide)));
    aligned(&rows)
}

fn headings(kind: &Kind, is_wide: bool) -> Vec<Cell> {
    let own = kind.columns.iter().map(|column| column.heading).chain(["PROVISIONING", "OPERATING", "AGE"]);
    let wide = kind.wide.iter().map(|column| column.heading).chain(["ID"]).filter(|_| is_wide);
    own.chain(wide).chain(["REASON"]).map(Cell::heading).collect()
}

fn row(resource: &Resource, names: &Names, is_wide: bool) -> Vec<Cell> {
    let state = resource.state();
    let (provisioning, operating) = (state.provisioning_status(), state.operating_status());
    let shown = |column: &Column| match names.shown(resource, column.path).as_str() {
        "" => Cell::plain("-"),
        text => Cell::plain(text),
    };
    let mut cells: Vec<Cell> = resource.kind.columns.iter().map(shown).collect();
    cells.push(Cell::painted(style::provisioning(provisioning), style::provisioning_name(provisioning)));
    cells.push(Cell::painted(style::operating(&state), style::operating_name(operating)));
    cells.push(Cell::plain(&age(state.created_at, SystemTime::now())));
    if is_wide {
        cells.extend(resource.kind.wide.iter().map(shown));
        cells.push(Cell::plain(&resource.id()));
    }
    cells.push(Cell::plain(&state.reason));
    cells
}

/// Time since a resource was created, in its largest unit; "-" if it is not known.
fn age(created: Option<Timestamp>, now: SystemTime) -> String {
    let age = created.and_then(|created| now.duration_since(SystemTime::try_from(created).ok()?).ok());
    match age.map(|age| age.as_secs()) {
        None => "-".to_owned(),
        Some(seconds @ 0..120) => format!("{seconds}s"),
        Some(seconds @ 120..7_200) => format!("{}m", seconds / 60),
        Some(seconds @ 7_200..172_800) => format!("{}h", seconds / 3_600),
        Some(seconds) => format!("{}d", seconds / 86_400),
    }
}

/// Formats one resource: the fields that are set, in the order of the API, then its state. Ids have their names beside them.
pub(crate) fn details(resource: &Resource, names: &Names) -> String {
    let mut rows = Vec::new();
    for (field, value) in resource.message.fields() {
        if !["state", "network_name"].contains(&field.name()) {
            let (shown, name) = (show_field(&field, value), names.beside(resource, field.name()));
            let shown = name.map_or(shown.clone(), |name| format!("{shown} ({name})"));
            rows.push(pair(field.name(), Cell::plain(&shown)));
        }
    }
    let state = resource.message.get_field_by_name("state");
    for (field, value) in state.iter().filter_map(|state| state.as_message()).flat_map(|state| state.fields())
    {
        rows.push(pair(field.name(), status_cell(resource, field.name(), &show_field(&field, value))));
    }
    aligned(&rows)
}

/// Formats a field of the state, the two statuses in their styles.
fn status_cell(resource: &Resource, name: &str, shown: &str) -> Cell {
    match name {
        "provisioning_status" => {
            Cell::painted(style::provisioning(resource.state().provisioning_status()), shown)
        }
        "operating_status" => Cell::painted(style::operating(&resource.state()), shown),
        _ => Cell::plain(shown),
    }
}

fn pair(name: &str, value: Cell) -> Vec<Cell> {
    vec![Cell::heading(name), value]
}

/// Formats rows, each column as wide as its widest cell, separated by two spaces, without trailing spaces.
pub(super) fn aligned(rows: &[Vec<Cell>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&cell.text);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width) + 2));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{Backend, ResourceState};

    use std::time::Duration;

    use super::*;
    use crate::kinds::BACKEND;
    use crate::schema::Schema;

    fn backend(name: &str, address: &str) -> Resource {
        let backend = Backend {
            id: "b1".to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            port: 80,
            weight: Some(3),
            state: Some(ResourceState { provisioning_status: 1, operating_status: 6, ..Default::default() }),
            ..Default::default()
        };
        Resource { kind: &BACKEND, message: Schema::load().unwrap().dynamic("Backend", &backend).unwrap() }
    }

    fn without_style(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn columns_line_up_and_names_cannot_steer_the_terminal() {
        let text = without_style(&list(
            &[backend("a\u{1b}[2J", "10.0.0.1"), backend("\u{65e5}\u{672c}", "fd00::1")],
            &Names::default(),
            false,
        ));
        let lines: Vec<&str> = text.lines().collect();
        let place = |line: &str, text: &str| line.get(..line.find(text).unwrap()).unwrap().width();
        let column = place(lines[0], "ADDRESS");
        assert_eq!((place(lines[1], "10.0.0.1:80"), place(lines[2], "[fd00::1]:80")), (column, column));
        assert!(lines[1].contains(r"a\u{1b}[2J"));
        assert!(lines[1].contains("ACTIVE") && lines[1].contains("NO_MONITOR"));
    }

    #[test]
    fn details_show_each_field_that_is_set() {
        let text = without_style(&details(&backend("a", "10.0.0.1"), &Names::default()));
        for line in ["weight               3", "provisioning_status  ACTIVE"] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(list(&[], &Names::default(), true), "nothing found\n");
    }

    #[test]
    fn ages_have_one_unit() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, shown) in [(0, "0s"), (119, "119s"), (120, "2m"), (7_200, "2h"), (172_800, "2d")] {
            assert_eq!(age(Some((now - Duration::from_secs(seconds)).into()), now), shown);
        }
        let later = Timestamp::from(now + Duration::from_secs(9));
        assert_eq!((age(None, now), age(Some(later), now)), ("-".to_owned(), "-".to_owned()));
    }
}
