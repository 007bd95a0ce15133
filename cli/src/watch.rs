//! `watch`: a line for each event.

use std::time::SystemTime;

use anstyle::Style;
use fiberlb_proto::v1::WatchEvent;
use fiberlb_proto::v1::watch_event::Type;
use prost_types::Timestamp;

use crate::args::Format;
use crate::client::Client;
use crate::event;
use crate::event_stream::{EventStream, Step};
use crate::failure::Failure;
use crate::kinds::LOAD_BALANCER;
use crate::names::Names;
use crate::render::{Output, canonical, escape::clean, style};
use crate::resolve;
use crate::resource::Resource;
use crate::schema::Schema;

/// Shows the present state and each change, until interrupted, or until the watched load balancer is deleted.
///
/// # Errors
/// Unknown or ambiguous name; a status that a retry does not change; closed standard output.
pub(crate) async fn run(client: &Client, out: &mut Output, reference: Option<&str>) -> Result<(), Failure> {
    let id = match reference {
        Some(reference) => resolve::resource(client, &LOAD_BALANCER, reference).await?.id(),
        None => String::new(),
    };
    let mut stream = EventStream::new(client, &id);
    let mut names = Names::default();
    loop {
        match stream.next().await.map_err(|status| client.plain_failure(status.into()))? {
            Step::Opened => {}
            Step::Event(event) => {
                out.result(&line(&client.schema, &event, &mut names, &out.format, now())?)?;
            }
            Step::Broken(status) => {
                out.progress(&format!("the event stream broke, reconnecting: {}", clean(status.message())));
            }
            Step::Gone => return Ok(()),
        }
    }
}

/// One event in the chosen format, with its newline. Parents come before their children, so that `names` knows them.
fn line(
    schema: &Schema,
    event: &WatchEvent,
    names: &mut Names,
    format: &Format,
    time: Timestamp,
) -> Result<String, Failure> {
    if !format.is_for_people() {
        return canonical::streamed(&schema.dynamic("WatchEvent", event)?, format);
    }
    let what = match event::resource(schema, event)? {
        Some(resource) => {
            names.learn(&resource);
            let what = described(&resource, names, *format == Format::Wide);
            if event.r#type() == Type::Deleted {
                names.forget(&resource);
            }
            what
        }
        None => "the present state is complete; changes follow".to_owned(),
    };
    let (name, style) = (event::type_name(event.r#type()), type_style(event.r#type()));
    Ok(format!("{time}  {style}{name:<8}{style:#}  {what}\n"))
}

/// A resource in one line: its reference, its id if `with_id`, its statuses, its observed generation while it is behind, and
/// its reason.
fn described(resource: &Resource, names: &Names, with_id: bool) -> String {
    let state = resource.state();
    let mut line = format!(
        "{}  {} {}",
        clean(&names.labelled(resource, with_id)),
        style::provisioning(state.provisioning_status()),
        style::operating(&state),
    );
    if state.generation != state.observed_generation {
        line.push_str(&format!("  generation {} of {}", state.observed_generation, state.generation));
    }
    if !state.reason.is_empty() {
        line.push_str(&format!("  {}", clean(&state.reason)));
    }
    line
}

fn type_style(kind: Type) -> Style {
    match kind {
        Type::Created => style::GOOD,
        Type::Updated => style::FAIR,
        Type::Deleted => style::BAD,
        Type::Snapshot | Type::Synced | Type::Unspecified => style::DIM,
    }
}

/// Time of reception, in UTC with whole milliseconds.
fn now() -> Timestamp {
    let mut now = Timestamp::from(SystemTime::now());
    now.nanos -= now.nanos % 1_000_000;
    now
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1::{Backend, ResourceState, watch_event};

    use super::*;

    fn event() -> WatchEvent {
        let state = ResourceState {
            provisioning_status: 3,
            operating_status: 4,
            reason: "x\u{1b}".to_owned(),
            generation: 2,
            observed_generation: 1,
            ..Default::default()
        };
        let backend = Backend {
            id: "b1".to_owned(),
            pool_id: "p1".to_owned(),
            address: "fd00::1".to_owned(),
            port: 80,
            state: Some(state),
            ..Default::default()
        };
        WatchEvent { r#type: Type::Updated.into(), resource: Some(watch_event::Resource::Backend(backend)) }
    }

    #[test]
    fn an_event_is_one_line() {
        let schema = Schema::load().unwrap();
        let time = Timestamp { seconds: 0, nanos: 0 };
        let mut names = Names::default();
        let mut line = |format: &Format| line(&schema, &event(), &mut names, format, time).unwrap();
        let text = line(&Format::Table);
        assert_eq!(
            anstream::adapter::strip_str(&text).to_string(),
            "1970-01-01T00:00:00Z  UPDATED   backend p1/[fd00::1]:80  PENDING_UPDATE DEGRADED  generation 1 of 2  x\\u{1b}\n"
        );
        assert!(line(&Format::Wide).contains("backend p1/[fd00::1]:80 (b1)"));
        let json = line(&Format::Json);
        assert_eq!(json.lines().count(), 1);
        assert!(json.starts_with(r#"{"type":"TYPE_UPDATED","backend":{"id":"b1""#), "{json}");
    }
}
