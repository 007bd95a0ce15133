//! Differences between OVN and the desired state, as a table.

use fiberlb_proto::v1::{OvnDifference, OvnDifferenceKind, VerifyOvnResponse};

use super::style;
use super::table::{Cell, aligned};
use crate::names::Names;

/// Formats differences, a row each.
pub(crate) fn differences(found: &VerifyOvnResponse, names: &Names) -> String {
    let noun = if found.load_balancers == 1 { "load balancer" } else { "load balancers" };
    let compared = format!("{} {noun} compared with {}", found.load_balancers, found.northbound);
    let lacking: String = found.lacking.iter().map(|what| format!("note: {what}\n")).collect();
    if found.total == 0 {
        return format!("{compared}: no difference\n{lacking}");
    }
    let mut rows = vec![["DIFFERENCE", "TABLE", "ROW", "OF", "DETAIL"].map(Cell::heading).into()];
    rows.extend(found.differences.iter().map(|it| row(it, names)));
    let shown = found.differences.len();
    let more = match usize::try_from(found.total).unwrap_or(usize::MAX).saturating_sub(shown) {
        0 => String::new(),
        more => format!("and {more} more\n"),
    };
    format!("{compared}\n\n{}{more}{lacking}", aligned(&rows))
}

fn row(it: &OvnDifference, names: &Names) -> Vec<Cell> {
    let (style, name) = match it.kind() {
        OvnDifferenceKind::Missing => (style::BAD, "MISSING"),
        OvnDifferenceKind::Unexpected => (style::FAIR, "UNEXPECTED"),
        OvnDifferenceKind::Different => (style::BAD, "DIFFERENT"),
        OvnDifferenceKind::Blocked => (style::FAIR, "BLOCKED"),
        OvnDifferenceKind::Unspecified => (style::DIM, "-"),
    };
    let of = match it.load_balancer_id.as_str() {
        "" if it.network_name.is_empty() => format!("network {}", it.network),
        "" => format!("network {}", it.network_name),
        id => format!("load balancer {}", names.by_id(id)),
    };
    let table = if it.table.is_empty() { "-" } else { &it.table };
    vec![
        Cell::painted(style::painted(style, name), name),
        Cell::plain(table),
        Cell::plain(&it.row),
        Cell::plain(&of),
        Cell::plain(&it.detail),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;
    use crate::render::canonical;
    use crate::schema::Schema;

    #[test]
    fn what_differs_and_what_does_not() {
        let mut found = VerifyOvnResponse {
            load_balancers: 3,
            northbound: "tcp:a:1, schema 7.0.0".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            differences(&found, &Names::default()),
            "3 load balancers compared with tcp:a:1, schema 7.0.0: no difference\n"
        );
        let message = Schema::load().unwrap().dynamic("VerifyOvnResponse", &found).unwrap();
        let json = canonical::whole(&message, &Format::Json).unwrap();
        assert!(json.contains("\"differences\": []"), "programs find an empty list: {json}");
        found.differences = vec![OvnDifference {
            kind: OvnDifferenceKind::Missing.into(),
            table: "Load_Balancer".to_owned(),
            row: "r".to_owned(),
            load_balancer_id: "l".to_owned(),
            ..Default::default()
        }];
        found.total = 5;
        found.lacking = vec!["it lacks something".to_owned()];
        let shown = anstream::adapter::strip_str(&differences(&found, &Names::default())).to_string();
        let wanted = "\
3 load balancers compared with tcp:a:1, schema 7.0.0

DIFFERENCE  TABLE          ROW  OF               DETAIL
MISSING     Load_Balancer  r    load balancer l
and 4 more
note: it lacks something
";
        assert_eq!(shown, wanted);
    }
}
