//! `logs`: a line for each connection of a listener, as it ends.

use std::time::Duration;

use fiberlb_proto::v1::{AccessLogEntry, StreamAccessLogResponse};
use tonic::{Code, Status};

use crate::args::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::kinds::LISTENER;
use crate::names::Names;
use crate::render::{Output, canonical, escape::clean, style};
use crate::resolve;
use crate::resource::Resource;
use crate::schema::Schema;
use crate::value::show_duration;

/// Pause before a stream that broke is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// Shows connections of a listener as they end, until interrupted, until there were `count` of them, or until it is
/// deleted.
///
/// # Errors
/// Unknown or ambiguous name; a status that a retry does not change; closed standard output.
pub(crate) async fn run(
    client: &Client,
    out: &mut Output,
    reference: &str,
    count: Option<u64>,
) -> Result<(), Failure> {
    let listener = resolve::resource(client, &LISTENER, reference).await?;
    let pools = PoolNames::of(client, &listener).await;
    let mut left = count.unwrap_or(u64::MAX);
    let mut is_begun = false;
    loop {
        match follow(client, out, (&listener.id(), &pools), &mut left, &mut is_begun).await {
            Ok(()) => return Ok(()),
            Err(Ended::Failed(failure)) => return Err(failure),
            Err(Ended::Refused(status)) if is_begun && may_return(status.code()) => {
                out.progress(&format!("the stream broke, reconnecting: {}", clean(status.message())));
                tokio::time::sleep(PAUSE).await;
            }
            Err(Ended::Refused(status)) if is_begun && status.code() == Code::NotFound => {
                out.progress("the listener is gone");
                return Ok(());
            }
            Err(Ended::Refused(status)) => return Err(client.plain_failure(status.into())),
        }
    }
}

/// Names of the pools of a listener, for people.
#[derive(Debug, Default)]
struct PoolNames {
    /// Default pool, which goes without saying.
    default: String,
    names: Names,
}

impl PoolNames {
    async fn of(client: &Client, listener: &Resource) -> Self {
        let names = Names::of(client, std::slice::from_ref(listener)).await;
        Self { default: listener.show("default_pool_id"), names }
    }

    /// Pool of a connection, unless it is the default one.
    fn shown<'a>(&'a self, id: &'a str) -> Option<&'a str> {
        (!id.is_empty() && id != self.default).then(|| self.names.by_id(id))
    }
}

/// End of a stream.
enum Ended {
    Refused(Status),
    Failed(Failure),
}

/// Shows what one stream brings.
async fn follow(
    client: &Client,
    out: &mut Output,
    (id, pools): (&str, &PoolNames),
    left: &mut u64,
    is_begun: &mut bool,
) -> Result<(), Ended> {
    let mut stream = client.access_log(id).await.map_err(Ended::Refused)?;
    if !*is_begun {
        *is_begun = true;
        out.progress("waiting for connections to end; those from now on are shown");
    }
    loop {
        let Some(response) = stream.message().await.map_err(Ended::Refused)? else {
            return Err(Ended::Refused(Status::unavailable("the server ended the stream")));
        };
        let StreamAccessLogResponse { entries, omitted } = response;
        if omitted > 0 {
            out.progress(&format!("{omitted} connections are left out here: there are too many"));
        }
        for entry in entries {
            let line = line(&client.schema, &entry, pools, &out.format).map_err(Ended::Failed)?;
            out.result(&line).map_err(Ended::Failed)?;
            *left -= 1;
            if *left == 0 {
                return Ok(());
            }
        }
    }
}

/// True if a stream that ended so may be opened again.
fn may_return(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::ResourceExhausted
    )
}

/// One connection in the chosen format, with its newline.
fn line(
    schema: &Schema,
    entry: &AccessLogEntry,
    pools: &PoolNames,
    format: &Format,
) -> Result<String, Failure> {
    if !format.is_for_people() {
        return canonical::streamed(&schema.dynamic("AccessLogEntry", entry)?, format);
    }
    let time = entry.start_time.map(|time| time.to_string()).unwrap_or_default();
    let client = match entry.peer.as_str() {
        "" => entry.client.clone(),
        proxy => format!("{} (by {proxy})", entry.client),
    };
    let pool = pools.shown(&entry.pool_id).map(|pool| format!("pool {} ", clean(pool))).unwrap_or_default();
    let backend = if entry.backend.is_empty() { "-" } else { &entry.backend };
    let style = if entry.reason == "closed" { style::GOOD } else { style::FAIR };
    let mut line = format!(
        "{time}  {}  {} -> {pool}{}  {style}{}{style:#}  {}  in {} B, out {} B",
        clean(&entry.node_id),
        clean(&client),
        clean(backend),
        clean(&entry.reason),
        duration(entry.duration.as_ref()),
        entry.bytes_in,
        entry.bytes_out,
    );
    if entry.tries > 0 {
        let tries = if entry.tries == 1 { String::new() } else { format!(", {} tries", entry.tries) };
        line.push_str(&format!(
            "  {}, connected after {}{tries}",
            clean(&entry.selection),
            duration(entry.connect_duration.as_ref())
        ));
    }
    Ok(line + "\n")
}

fn duration(duration: Option<&prost_types::Duration>) -> String {
    let duration = duration.copied().and_then(|it| Duration::try_from(it).ok()).unwrap_or_default();
    if duration < Duration::from_secs(1) {
        return format!("{}.{:03} ms", duration.as_millis(), duration.as_micros() % 1_000);
    }
    show_duration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_one_line() {
        let schema = Schema::load().unwrap();
        let short = |nanos| Some(prost_types::Duration { seconds: 0, nanos });
        let entry = AccessLogEntry {
            start_time: Some(prost_types::Timestamp { seconds: 1, nanos: 7_000_000 }),
            duration: short(12_345_000),
            node_id: "n1\u{1b}".to_owned(),
            client: "10.0.0.1:40000".to_owned(),
            pool_id: "p1".to_owned(),
            backend: "10.0.0.9:80".to_owned(),
            selection: "round_robin".to_owned(),
            tries: 2,
            connect_duration: short(250_000),
            bytes_in: 10,
            bytes_out: 20,
            reason: "closed".to_owned(),
            ..Default::default()
        };
        let among = |entry: &AccessLogEntry, default: &str| {
            let pools = PoolNames { default: default.to_owned(), ..PoolNames::default() };
            let text = line(&schema, entry, &pools, &Format::Table).unwrap();
            anstream::adapter::strip_str(&text).to_string()
        };
        let shown = |entry| among(entry, "p1");
        let of_another = among(&entry, "p2");
        assert!(of_another.contains("10.0.0.1:40000 -> pool p1 10.0.0.9:80  closed"), "{of_another}");
        assert_eq!(
            shown(&entry),
            "1970-01-01T00:00:01.007Z  n1\\u{1b}  10.0.0.1:40000 -> 10.0.0.9:80  closed  12.345 ms  in 10 B, out 20 B  \
             round_robin, connected after 0.250 ms, 2 tries\n"
        );
        let refused = AccessLogEntry {
            peer: "10.0.0.2:1".to_owned(),
            duration: Some(prost_types::Duration { seconds: 61, nanos: 0 }),
            reason: "no_backend".to_owned(),
            ..AccessLogEntry::default()
        };
        assert_eq!(shown(&refused), "     (by 10.0.0.2:1) -> -  no_backend  61s  in 0 B, out 0 B\n");
        let json = line(&schema, &entry, &PoolNames::default(), &Format::Json).unwrap();
        assert!(json.lines().count() == 1 && json.contains(r#""reason":"closed""#), "{json}");
    }
}
