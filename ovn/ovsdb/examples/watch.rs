//! Prints the rows of a database, and their changes as they happen, until interrupted:
//!
//! ```text
//! watch ENDPOINT DATABASE [TABLE...]
//! watch unix:/run/openvswitch/db.sock Open_vSwitch Bridge Port
//! ```
//!
//! A line for each row: `+` inserted, `-` deleted, `~` modified with the columns that changed, then table, UUID and columns as
//! JSON. What is present when it connects is shown as inserted. Without a table, all tables are watched.

use std::error::Error;
use std::process::ExitCode;

use ovsdb::client::{Client, Config, Event};
use ovsdb::operation::Columns;
use ovsdb::replica::MonitoredTable;
use ovsdb::untyped::{UntypedChange, UntypedReplica};
use serde_json::Value;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, database, tables @ ..] = arguments.as_slice() else {
        eprintln!("usage: watch ENDPOINT DATABASE [TABLE...]");
        return ExitCode::from(2);
    };
    match watch(endpoint, database, tables).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watch: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn watch(endpoint: &str, database: &str, tables: &[String]) -> Result<(), Box<dyn Error>> {
    let endpoints = endpoint.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let replica = if tables.is_empty() {
        UntypedReplica::all_tables()
    } else {
        UntypedReplica::of(tables.iter().map(MonitoredTable::new).collect())
    };
    let (client, mut events) = Client::start(Config { endpoints, ..Config::new(database) }, replica);

    // The client connects in the background: failed attempts show in its status.
    let mut status = client.status();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            eprintln!("{}", *status.borrow_and_update());
        }
    });

    while let Some(event) = events.recv().await {
        match event {
            Event::Reloaded(changes) | Event::Changed(changes) => changes.iter().for_each(print),
            Event::Disconnected => {}
        }
    }
    Ok(())
}

fn print(change: &UntypedChange) {
    let UntypedChange { table, uuid, before, after } = change;
    match (before, after) {
        (None, Some(after)) => println!("+ {table} {uuid} {}", Value::Object((**after).clone())),
        (Some(before), Some(after)) => {
            println!("~ {table} {uuid} {}", Value::Object(changed_columns(before, after)));
        }
        (_, None) => println!("- {table} {uuid}"),
    }
}

/// Columns of `after` that differ from `before`.
fn changed_columns(before: &Columns, after: &Columns) -> Columns {
    let changed = after.iter().filter(|(column, value)| before.get(*column) != Some(*value));
    changed.map(|(column, value)| (column.clone(), value.clone())).collect()
}
