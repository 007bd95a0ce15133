//! Tables with aligned columns: a row for each resource of a list, or for each field of a resource.

use super::escape::clean;
use super::style;
use crate::kinds::Kind;
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
        Self { width: text.chars().count(), text }
    }

    /// Cell of styled text, of which `visible` is visible.
    pub(super) fn painted(text: String, visible: &str) -> Self {
        Self { width: visible.chars().count(), text }
    }

    /// Name of a column or a field.
    pub(super) fn heading(text: &str) -> Self {
        Self::painted(style::painted(style::STRONG, text), text)
    }
}

/// Formats a list; "nothing found" if it is empty.
pub(crate) fn list(resources: &[Resource]) -> String {
    let Some(first) = resources.first() else { return "nothing found\n".to_owned() };
    let mut rows = vec![headings(first.kind)];
    rows.extend(resources.iter().map(row));
    aligned(&rows)
}

fn headings(kind: &Kind) -> Vec<Cell> {
    let own = kind.columns.iter().map(|column| column.heading);
    let all = ["ID"].into_iter().chain(own).chain(["PROVISIONING", "OPERATING", "REASON"]);
    all.map(Cell::heading).collect()
}

fn row(resource: &Resource) -> Vec<Cell> {
    let state = resource.state();
    let (provisioning, operating) = (state.provisioning_status(), state.operating_status());
    let mut cells = vec![Cell::plain(&resource.id())];
    cells.extend(resource.kind.columns.iter().map(|column| Cell::plain(&resource.show(column.path))));
    cells.push(Cell::painted(style::provisioning(provisioning), style::provisioning_name(provisioning)));
    cells.push(Cell::painted(style::operating(operating), style::operating_name(operating)));
    cells.push(Cell::plain(&state.reason));
    cells
}

/// Formats one resource: the fields that are set, in the order of the API, then its state.
pub(crate) fn details(resource: &Resource) -> String {
    let mut rows = Vec::new();
    for (field, value) in resource.message.fields() {
        if field.name() != "state" {
            rows.push(pair(field.name(), Cell::plain(&show_field(&field, value))));
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
        "operating_status" => Cell::painted(style::operating(resource.state().operating_status()), shown),
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
        let text = without_style(&list(&[backend("a\u{1b}[2J", "10.0.0.1"), backend("b", "fd00::1")]));
        let lines: Vec<&str> = text.lines().collect();
        let column = lines[0].find("ADDRESS").unwrap();
        assert_eq!(&lines[1][column..column + 11], "10.0.0.1:80");
        assert_eq!(&lines[2][column..column + 12], "[fd00::1]:80");
        assert!(lines[1].contains(r"a\u{1b}[2J"));
        assert!(lines[1].contains("ACTIVE") && lines[1].contains("NO_MONITOR"));
    }

    #[test]
    fn details_show_each_field_that_is_set() {
        let text = without_style(&details(&backend("a", "10.0.0.1")));
        for line in ["weight               3", "provisioning_status  ACTIVE"] {
            assert!(text.lines().any(|found| found == line), "{line} in:\n{text}");
        }
    }

    #[test]
    fn an_empty_list_says_so() {
        assert_eq!(list(&[]), "nothing found\n");
    }
}
