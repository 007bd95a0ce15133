//! Changes, as a diff: `+` is created, `~` changed, `-` deleted.

use super::escape::clean;
use super::style::{self, painted};
use crate::changes::{Change, ChangeAction};

/// Formats changes, a line for each resource and each changed field; "nothing would change" if there are none.
pub(super) fn lines(changes: &[Change]) -> String {
    if changes.is_empty() {
        return "nothing would change\n".to_owned();
    }
    let mut out = String::new();
    for change in changes {
        let (mark, style) = match change.action {
            ChangeAction::Create => ('+', style::GOOD),
            ChangeAction::Update => ('~', style::FAIR),
            ChangeAction::Delete => ('-', style::BAD),
        };
        out.push_str(&painted(style, &format!("{mark} {} {}", change.kind, clean(&change.name))));
        out.push('\n');
        for field in &change.fields {
            let (old, new) = (value(&field.old), value(&field.new));
            out.push_str(&format!("    {}: {old} -> {new}\n", field.field));
        }
    }
    out
}

fn value(shown: &str) -> String {
    if shown.is_empty() { "(none)".to_owned() } else { clean(shown).into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::FieldChange;

    #[test]
    fn each_resource_and_each_field_has_a_line() {
        let change = |action, fields| Change {
            action,
            kind: "backend",
            name: "a\u{1b}".to_owned(),
            id: String::new(),
            fields,
        };
        let weight = FieldChange { field: "weight".to_owned(), old: String::new(), new: "3".to_owned() };
        let changes = [change(ChangeAction::Update, vec![weight]), change(ChangeAction::Delete, Vec::new())];
        let text = anstream::adapter::strip_str(&lines(&changes)).to_string();
        assert_eq!(text, "~ backend a\\u{1b}\n    weight: (none) -> 3\n- backend a\\u{1b}\n");
        assert_eq!(lines(&[]), "nothing would change\n");
    }
}
