//! Clients, and waits for their state.

use std::time::Duration;

use ovsdb::client::{Client, Config, ConnectionStatus, Event};
use ovsdb::endpoint::Endpoint;
use ovsdb::replica::Replica;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use crate::program::{DATABASE, LONG};

/// Events of a client, with the changes of its replica.
pub type Events<C> = UnboundedReceiver<Event<C>>;

/// Default configuration with a fast reconnect.
pub fn config(endpoint: Endpoint) -> Config {
    Config {
        endpoints: vec![endpoint],
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_millis(50),
        ..Config::new(DATABASE)
    }
}

/// Starts a client and waits until it is live; its first event is received.
pub async fn connect<R: Replica>(config: Config, replica: R) -> (Client<R>, Events<R::Change>) {
    let (client, mut events) = Client::start(config, replica);
    reloaded(&mut events).await;
    (client, events)
}

/// Receives events up to the next reload; returns its changes.
pub async fn reloaded<C>(events: &mut Events<C>) -> Vec<C> {
    loop {
        match timeout(LONG, events.recv()).await.expect("no reload").expect("the client ended") {
            Event::Reloaded(changes) => return changes,
            Event::Changed(_) | Event::Disconnected => {}
        }
    }
}

/// Waits for a connection status.
pub async fn status<R: Replica>(client: &Client<R>, what: &str, holds: impl Fn(&ConnectionStatus) -> bool) {
    let mut status = client.status();
    let waited = timeout(LONG, status.wait_for(|status| holds(status))).await.is_ok();
    assert!(waited, "not seen: {what}; the status is: {}", *client.status().borrow());
}

/// Waits until the replica meets a condition.
pub async fn replica<R: Replica>(
    client: &Client<R>,
    events: &mut Events<R::Change>,
    what: &str,
    holds: impl Fn(&R) -> bool,
) {
    let waited = timeout(LONG, async {
        while !holds(&client.read()) {
            events.recv().await.expect("the client ended");
        }
    });
    assert!(waited.await.is_ok(), "not seen: {what}");
}
