//! Double of an OVSDB server, for tests in process: it serves [`Client`]s without a socket, so that they run under
//! tokio's paused clock.
//!
//! It has the rows, the operations and the garbage collection of a server, but checks no types, sizes or indexes, ignores the
//! conditions of monitors, and its connections are function calls. Tests against a real server cover the protocol.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use self::content::Tables;
use super::publisher::Publisher;
use super::{Client, Config, ConnectionError, ConnectionStatus, Event, Events, Request};
use crate::endpoint::Endpoint;
use crate::error::{DatabaseError, TransactError};
use crate::operation::{Operation, OperationResult};
use crate::replica::{Replica, RowUpdate};
use crate::schema::SchemaError;
use crate::session::Content;

mod content;

/// Reason of a disconnect.
const STOPPED: &str = "the double is stopped";

/// Outcome that a test chooses for a client's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carried out, or refused as its operations require.
    Answered,
    /// Refused at its commit.
    Refused(DatabaseError),
    /// Never answered: the client's timeout ends it. Carried out if `applied`.
    Unanswered {
        /// True for a transaction that reached the database.
        applied: bool,
    },
}

/// Decides the fate of a transaction by its operations.
type Judge = Box<dyn FnMut(&[Operation]) -> Fate + Send>;

/// Server in process. Clones share it.
pub struct Double<R: Replica> {
    state: Arc<Mutex<State<R>>>,
    judge: Arc<Mutex<Judge>>,
    transactions: watch::Sender<Vec<Vec<Operation>>>,
}

struct State<R: Replica> {
    content: Tables,
    is_up: bool,
    clients: Vec<Publisher<R>>,
    /// Callers of transactions that are never answered.
    unanswered: Vec<oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>,
}

impl<R: Replica> Clone for Double<R> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            judge: Arc::clone(&self.judge),
            transactions: self.transactions.clone(),
        }
    }
}

impl<R: Replica> std::fmt::Debug for Double<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Double")
    }
}

impl<R: Replica> Double<R> {
    /// Running server with an empty database.
    ///
    /// # Errors
    /// [`SchemaError`] if `schema` is not a `<database-schema>` (RFC 7047, section 3.2).
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let state =
            State { content: Tables::new(schema)?, is_up: true, clients: Vec::new(), unanswered: Vec::new() };
        Ok(Self {
            state: Arc::new(Mutex::new(state)),
            judge: Arc::new(Mutex::new(Box::new(|_| Fate::Answered))),
            transactions: watch::Sender::default(),
        })
    }

    /// Connects a client on the current tokio runtime, with the default timeouts of [`Config`].
    pub fn client(&self, replica: R) -> (Client<R>, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (client, publisher, requests, events): (_, _, _, Events<R>) =
            Client::new(&Config::new("double"), replica);
        let mut state = self.state();
        if state.is_up {
            connect(&publisher, &state.content);
        }
        state.clients.push(publisher);
        drop(state);
        tokio::spawn(self.clone().serve(requests));
        (client, events)
    }

    /// Sets the function that chooses the outcome of clients' transactions. It may use the server itself.
    pub fn judge(&self, judge: impl FnMut(&[Operation]) -> Fate + Send + 'static) {
        *self.judge.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(judge);
    }

    /// Carries out a transaction of another client.
    ///
    /// # Errors
    /// [`TransactError::Refused`], as a server would.
    pub fn write(&self, operations: &[Operation]) -> Result<Vec<OperationResult>, TransactError> {
        self.state().transact(operations)
    }

    /// All rows, as a new client receives them.
    pub fn rows(&self) -> Vec<RowUpdate> {
        self.state().content.rows()
    }

    /// All transactions that clients have sent, whatever their outcome.
    pub fn transactions(&self) -> watch::Receiver<Vec<Vec<Operation>>> {
        self.transactions.subscribe()
    }

    /// Stops the server: closes all connections until [`Double::start`].
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_up = false;
        state.unanswered.clear();
        state.clients.iter().for_each(disconnect);
    }

    /// Starts the server again: all clients reconnect at once.
    pub fn start(&self) {
        let mut state = self.state();
        state.is_up = true;
        let State { content, clients, .. } = &*state;
        clients.iter().for_each(|client| connect(client, content));
    }

    async fn serve(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(request) = requests.recv().await {
            if !self.state().is_up {
                request.refuse(STOPPED.to_owned());
                continue;
            }
            let Request { operations, reply } = request;
            let fate = (self.judge.lock().unwrap_or_else(PoisonError::into_inner))(&operations);
            let mut state = self.state();
            match fate {
                Fate::Answered => drop(reply.send(state.transact(&operations))),
                Fate::Refused(error) => {
                    let _ = reply.send(Err(TransactError::Refused { operation: None, error, details: None }));
                }
                Fate::Unanswered { applied } => {
                    if applied {
                        let _ = state.transact(&operations);
                    }
                    state.unanswered.push(reply);
                }
            }
            drop(state);
            self.transactions.send_modify(|all| all.push(operations));
        }
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Replica> State<R> {
    fn transact(&mut self, operations: &[Operation]) -> Result<Vec<OperationResult>, TransactError> {
        let (results, updates) = self.content.transact(operations)?;
        if self.is_up && !updates.is_empty() {
            self.clients.iter().for_each(|client| update(client, updates.clone()));
        }
        Ok(results)
    }
}

fn connect<R: Replica>(client: &Publisher<R>, content: &Tables) {
    let endpoint = Endpoint::Unix(PathBuf::from("double"));
    // A client that cannot take the content stays without a connection.
    let _ = client.live(&endpoint, Arc::clone(content.schema()), Content::Snapshot(content.rows()));
}

fn disconnect<R: Replica>(client: &Publisher<R>) {
    let error = ConnectionError::Io(io::Error::other(STOPPED));
    let errors = vec![(Endpoint::Unix(PathBuf::from("double")), Arc::new(error))];
    client.status.send_replace(ConnectionStatus::Disconnected { since: SystemTime::now(), errors });
    client.send(Event::Disconnected);
}

/// Sends updates; a client that cannot take them closes the connection.
fn update<R: Replica>(client: &Publisher<R>, updates: Vec<RowUpdate>) {
    if client.update(updates).is_err() {
        disconnect(client);
    }
}
