//! Double of an OVSDB server, for tests in process: it serves [`Client`]s without a socket, so that they run under
//! tokio's paused clock.
//!
//! It has the rows, the operations and the garbage collection of a server, but checks no types, sizes or
//! indexes, and nothing of its connections is a protocol. Tests with a real server show that clients can talk to one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use self::content::Tables;
use super::{Client, Config, ConnectionStatus, Event, Far, Request};
use crate::endpoint::Endpoint;
use crate::error::{DatabaseError, TransactError};
use crate::operation::{Operation, OperationResult};
use crate::replica::{Replica, RowUpdate};
use crate::schema::{Schema, SchemaError};

mod content;

/// Fate of a client's transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Carried out, or refused as its operations require.
    Answered,
    /// Refused at its commit.
    Refused(DatabaseError),
    /// Never answered: the client gives up when its time is over. Carried out if `applied`.
    Unanswered {
        /// True for a transaction that reached the database.
        applied: bool,
    },
}

/// Decides the fate of a transaction by its operations.
type Judge = Box<dyn FnMut(&[Operation]) -> Fate + Send>;

/// The server. Clones share it.
pub struct Double<R: Replica> {
    database: Arc<Mutex<Database<R>>>,
    judge: Arc<Mutex<Judge>>,
    transactions: watch::Sender<Vec<Vec<Operation>>>,
}

struct Database<R: Replica> {
    schema: Arc<Schema>,
    content: Tables,
    is_up: bool,
    links: Vec<Link<R>>,
    /// Callers that wait for an answer until their time is over.
    unanswered: Vec<oneshot::Sender<Result<Vec<OperationResult>, TransactError>>>,
}

/// Connection to a client.
struct Link<R: Replica> {
    replica: Arc<RwLock<R>>,
    events: mpsc::UnboundedSender<Event<R::Change>>,
    status: watch::Sender<ConnectionStatus>,
    has_been_live: Arc<AtomicBool>,
}

impl<R: Replica> Clone for Double<R> {
    fn clone(&self) -> Self {
        Self {
            database: Arc::clone(&self.database),
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
    /// A server of an empty database, which is up and answers.
    ///
    /// # Errors
    /// `schema` is none (RFC 7047, section 3.2).
    pub fn new(schema: &Value) -> Result<Self, SchemaError> {
        let database = Database {
            schema: Arc::new(Schema::parse(schema)?),
            content: Tables::new(schema),
            is_up: true,
            links: Vec::new(),
            unanswered: Vec::new(),
        };
        Ok(Self {
            database: Arc::new(Mutex::new(database)),
            judge: Arc::new(Mutex::new(Box::new(|_| Fate::Answered))),
            transactions: watch::Sender::default(),
        })
    }

    /// A client of it on the current tokio runtime, with the timeouts of a [`Config`].
    pub fn client(&self, replica: R) -> (Client<R>, mpsc::UnboundedReceiver<Event<R::Change>>) {
        let (client, far, heard) = Client::new(&Config::new("double"), replica);
        let Far { replica, requests, events, status, has_been_live } = far;
        let link = Link { replica, events, status, has_been_live };
        let mut database = self.database();
        if database.is_up {
            link.connect(&database.schema, database.content.rows());
        }
        database.links.push(link);
        drop(database);
        tokio::spawn(self.clone().serve(requests));
        (client, heard)
    }

    /// Sets who decides the fate of clients' transactions. The judge may use the server itself.
    pub fn judge(&self, judge: impl FnMut(&[Operation]) -> Fate + Send + 'static) {
        *self.judge.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(judge);
    }

    /// Carries out a transaction of a client that is none of ours.
    ///
    /// # Errors
    /// [`TransactError::Refused`], as its operations require.
    pub fn write(&self, operations: &[Operation]) -> Result<Vec<OperationResult>, TransactError> {
        self.database().transact(operations)
    }

    /// All rows, as a new client gets them.
    pub fn rows(&self) -> Vec<RowUpdate> {
        self.database().content.rows()
    }

    /// All transactions that clients have sent, whatever became of them.
    pub fn transactions(&self) -> watch::Receiver<Vec<Vec<Operation>>> {
        self.transactions.subscribe()
    }

    /// Ends all connections; there are none until [`Double::start`].
    pub fn stop(&self) {
        let mut database = self.database();
        database.is_up = false;
        database.unanswered.clear();
        database.links.iter().for_each(Link::disconnect);
    }

    /// Connects all clients again.
    pub fn start(&self) {
        let mut database = self.database();
        database.is_up = true;
        let Database { schema, content, links, .. } = &*database;
        links.iter().for_each(|link| link.connect(schema, content.rows()));
    }

    async fn serve(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(Request { operations, answer }) = requests.recv().await {
            if !self.database().is_up {
                let reason = "the double is stopped".to_owned();
                let _ = answer.send(Err(TransactError::NotConnected { reason }));
                continue;
            }
            let fate = (self.judge.lock().unwrap_or_else(PoisonError::into_inner))(&operations);
            let mut database = self.database();
            match fate {
                Fate::Answered => drop(answer.send(database.transact(&operations))),
                Fate::Refused(error) => {
                    let _ =
                        answer.send(Err(TransactError::Refused { operation: None, error, details: None }));
                }
                Fate::Unanswered { applied } => {
                    if applied {
                        let _ = database.transact(&operations);
                    }
                    database.unanswered.push(answer);
                }
            }
            drop(database);
            self.transactions.send_modify(|all| all.push(operations));
        }
    }

    fn database(&self) -> MutexGuard<'_, Database<R>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Replica> Database<R> {
    fn transact(&mut self, operations: &[Operation]) -> Result<Vec<OperationResult>, TransactError> {
        let (results, updates) = self.content.transact(operations)?;
        if self.is_up && !updates.is_empty() {
            self.links.iter().for_each(|link| link.update(updates.clone()));
        }
        Ok(results)
    }
}

impl<R: Replica> Link<R> {
    fn connect(&self, schema: &Arc<Schema>, rows: Vec<RowUpdate>) {
        let reloaded = self.replica.write().unwrap_or_else(PoisonError::into_inner).reload(rows);
        let Ok(changes) = reloaded else { return };
        let endpoint = Endpoint::Unix(PathBuf::from("double"));
        self.has_been_live.store(true, Ordering::Release);
        self.status.send_replace(ConnectionStatus::Live { endpoint, schema: Arc::clone(schema) });
        // Nobody has to listen.
        let _ = self.events.send(Event::Reloaded(changes));
    }

    fn disconnect(&self) {
        let (since, reason) = (SystemTime::now(), "the double is stopped".to_owned());
        self.status.send_replace(ConnectionStatus::Disconnected { since, reason });
        let _ = self.events.send(Event::Disconnected);
    }

    /// Ends the connection, as a client does, where a column is not what it should be.
    fn update(&self, updates: Vec<RowUpdate>) {
        let applied = self.replica.write().unwrap_or_else(PoisonError::into_inner).apply(updates);
        match applied {
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => drop(self.events.send(Event::Changed(changes))),
            Err(_) => self.disconnect(),
        }
    }
}
