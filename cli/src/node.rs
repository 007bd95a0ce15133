//! `node list`: the proxy nodes, for operators.

use fiberlb_proto::v1::Node;
use prost_reflect::{DynamicMessage, Value};

use crate::args::Format;
use crate::client::Client;
use crate::failure::Failure;
use crate::render::{Output, canonical, fleet};
use crate::schema::internal;

/// Lists all nodes, in the order of their ids.
///
/// # Errors
/// The server refuses; nobody reads on.
pub(crate) async fn list(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let answer = client.call("NodeService", "ListNodes", |_| Ok(())).await;
    let nodes = taken(answer.map_err(|error| client.plain_failure(error))?);
    let text = match out.format {
        Format::Table => fleet::nodes(&nodes.iter().map(typed).collect::<Result<Vec<_>, _>>()?),
        format => canonical::several(&nodes.iter().collect::<Vec<_>>(), format)?,
    };
    out.result(&text)
}

/// The nodes of an answer.
fn taken(mut answer: DynamicMessage) -> Vec<DynamicMessage> {
    let Some(Value::List(values)) = answer.take_field_by_name("nodes") else { return Vec::new() };
    let message = |value| if let Value::Message(message) = value { Some(message) } else { None };
    values.into_iter().filter_map(message).collect()
}

fn typed(node: &DynamicMessage) -> Result<Node, Failure> {
    node.transcode_to().map_err(|error| internal(&error.to_string()))
}
