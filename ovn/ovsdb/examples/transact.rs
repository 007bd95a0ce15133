//! Carries out one operation on a database, and prints the row that it left:
//!
//! ```text
//! transact ENDPOINT DATABASE insert TABLE ROW
//! transact ENDPOINT DATABASE update TABLE UUID ROW
//! transact ENDPOINT DATABASE delete TABLE UUID
//! transact unix:/run/openvswitch/db.sock Open_vSwitch update Bridge 6ba7b810-9dad-11d1-80b4-00c04fd430c8 '{"name": "br1"}'
//! ```
//!
//! `ROW` is a JSON object of columns with values in OVSDB's notation (RFC 7047, section 5.1). An update is refused if somebody
//! else changed one of its columns since this program read it.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use ovsdb::client::{Client, Config, ConnectionStatus};
use ovsdb::operation::{Columns, Condition, Operation};
use ovsdb::replica::MonitoredTable;
use ovsdb::untyped::UntypedReplica;
use serde_json::Value;
use uuid::Uuid;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        [endpoint, database, verb, table, operands @ ..] => {
            transact((endpoint, database), verb, table, operands).await
        }
        _ => Err("usage: transact ENDPOINT DATABASE insert|update|delete TABLE [UUID] [ROW]".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("transact: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn transact(
    (endpoint, database): (&str, &str),
    verb: &str,
    table: &str,
    operands: &[&str],
) -> Result<(), Box<dyn Error>> {
    let endpoints = endpoint.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let replica = UntypedReplica::of(vec![MonitoredTable::new(table)]);
    let (client, _events) = Client::start(Config { endpoints, ..Config::new(database) }, replica);
    let mut status = client.status();
    if tokio::time::timeout(Duration::from_secs(10), status.wait_for(ConnectionStatus::is_live))
        .await
        .is_err()
    {
        return Err(client.status().borrow().to_string().into());
    }

    let table = table.to_owned();
    let (uuid, operations) = match (verb, operands) {
        ("insert", [row]) => {
            let uuid = Uuid::new_v4();
            (uuid, vec![Operation::insert(table.clone(), uuid, serde_json::from_str(row)?)])
        }
        ("update", [uuid, row]) => {
            let (uuid, row) = (uuid.parse()?, serde_json::from_str(row)?);
            let guard = unchanged(&client, &table, uuid, &row)?;
            (uuid, vec![guard, Operation::update(table.clone(), uuid, row)])
        }
        ("delete", [uuid]) => {
            let uuid = uuid.parse()?;
            (uuid, vec![Operation::delete(table.clone(), uuid)])
        }
        _ => return Err(format!("{verb} takes other operands").into()),
    };
    let results = client.transact(operations).await?;
    if results.iter().any(|result| result.count == Some(0)) {
        return Err(format!("{table} has no row {uuid}").into());
    }
    // The replica includes the transaction as soon as it is acknowledged.
    match client.read().get(&table, uuid) {
        Some(row) => println!("{uuid} {}", Value::Object((**row).clone())),
        None => println!("{uuid} deleted"),
    }
    Ok(())
}

/// Guard that the columns of `row` still hold what the replica says.
fn unchanged(
    client: &Client<UntypedReplica>,
    table: &str,
    uuid: Uuid,
    row: &Columns,
) -> Result<Operation, Box<dyn Error>> {
    let held = client.read().get(table, uuid).cloned().ok_or_else(|| format!("{table} has no row {uuid}"))?;
    let held: Columns = held
        .iter()
        .filter(|(column, _)| row.contains_key(*column))
        .map(|(column, value)| (column.clone(), value.clone()))
        .collect();
    Ok(Operation::Wait {
        table: table.to_owned().into(),
        conditions: vec![Condition::row(uuid)],
        columns: held.keys().cloned().map(Into::into).collect(),
        rows: vec![held],
    })
}
