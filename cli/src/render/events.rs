//! Recent changes of statuses, as a table.

use fiberlb_proto::v1::{Event, ListEventsResponse, ResourceState};

use super::style;
use super::table::{Cell, aligned};

/// Formats events, a row each, the oldest first.
pub(crate) fn table(found: &ListEventsResponse) -> String {
    let since = found.since.map(|since| since.to_string()).unwrap_or_default();
    if found.events.is_empty() {
        return format!("no events since the plugin was started, {since}\n");
    }
    let mut rows = vec![["TIME", "EVENT", "BEFORE", "NOW", "REASON"].map(Cell::heading).into()];
    rows.extend(found.events.iter().map(row));
    aligned(&rows)
}

fn row(it: &Event) -> Vec<Cell> {
    let name = if it.name.is_empty() { &it.resource_id } else { &it.name };
    let before = ResourceState {
        provisioning_status: it.old_provisioning_status,
        operating_status: it.old_operating_status,
        ..ResourceState::default()
    };
    let now = ResourceState {
        provisioning_status: it.provisioning_status,
        operating_status: it.operating_status,
        reason_code: it.reason_code.clone(),
        ..ResourceState::default()
    };
    vec![
        Cell::plain(&it.time.map_or_else(|| "-".to_owned(), |time| time.to_string())),
        Cell::plain(&format!("{} {name}", it.kind)),
        statuses(&before, it),
        statuses(&now, it),
        Cell::plain(&it.reason),
    ]
}

/// The statuses of a state, of those that an event has changed.
fn statuses(state: &ResourceState, event: &Event) -> Cell {
    let provisioning = state.provisioning_status();
    let operating = state.operating_status();
    let parts = [
        (
            event.old_provisioning_status != event.provisioning_status,
            style::provisioning(provisioning),
            style::provisioning_name(provisioning),
        ),
        (
            event.old_operating_status != event.operating_status,
            style::operating(state),
            style::operating_name(operating),
        ),
    ];
    let changed: Vec<_> = parts.into_iter().filter(|(is_changed, ..)| *is_changed).collect();
    let painted: Vec<String> = changed.iter().map(|(_, painted, _)| painted.clone()).collect();
    let visible: Vec<&str> = changed.iter().map(|(.., visible)| *visible).collect();
    Cell::painted(painted.join(" "), &visible.join(" "))
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn each_event_says_what_has_changed() {
        let down = Event {
            time: Some(Timestamp { seconds: 0, nanos: 0 }),
            kind: "backend".to_owned(),
            name: "a\u{1b}".to_owned(),
            old_provisioning_status: 1,
            old_operating_status: 1,
            provisioning_status: 1,
            operating_status: 3,
            reason: "timed out".to_owned(),
            ..Default::default()
        };
        let created = Event {
            kind: "load balancer".to_owned(),
            name: String::new(),
            resource_id: "lb1".to_owned(),
            old_provisioning_status: 2,
            old_operating_status: 3,
            operating_status: 1,
            reason: String::new(),
            ..down.clone()
        };
        let mut found = ListEventsResponse { events: vec![created, down], since: None };
        let shown = anstream::adapter::strip_str(&table(&found)).to_string();
        let wanted = "\
TIME                  EVENT              BEFORE                  NOW            REASON
1970-01-01T00:00:00Z  load balancer lb1  PENDING_CREATE OFFLINE  ACTIVE ONLINE
1970-01-01T00:00:00Z  backend a\\u{1b}    ONLINE                  OFFLINE        timed out
";
        assert_eq!(shown, wanted);
        found.events.clear();
        found.since = Some(Timestamp { seconds: 60, nanos: 0 });
        assert_eq!(table(&found), "no events since the plugin was started, 1970-01-01T00:01:00Z\n");
    }
}
