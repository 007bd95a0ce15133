//! Compare-and-swap transactions, and the plain writes.

use prost::Message as _;

use crate::Client;
use crate::error::{Access, Error};
use crate::kv::{Page, Range, kv};
use crate::lease::LeaseId;
use crate::wire::{self, request_op, response_op};

/// Most compares, and most operations of either branch, of one transaction: etcd's default (`--max-txn-ops`).
pub const MAX_OPERATIONS: usize = 128;

/// Most bytes of one request: etcd's default of 1.5 MiB (`--max-request-bytes`). Keys, values and some bytes for each
/// operation count.
pub const MAX_REQUEST_BYTES: usize = 1_572_864;

/// Condition of a [`Transaction`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The compared key.
    pub key: Vec<u8>,
    /// The revision that must have put it last; 0: it must be absent.
    pub revision: u64,
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read.
    Get(Range),
    /// Set a key. A key may be put once in a transaction, and not be in a range that it deletes.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
        /// The lease that the key expires with; `None`: it stays, even if it was on one before.
        lease: Option<LeaseId>,
    },
    /// Remove all keys of a range; its other fields are ignored.
    Delete(Range),
}

impl Operation {
    fn into_wire(self) -> wire::RequestOp {
        let request = match self {
            Self::Get(range) => request_op::Request::RequestRange(range.to_wire()),
            Self::Put { key, value, lease } => request_op::Request::RequestPut(wire::PutRequest {
                key,
                value,
                lease: lease.map_or(0, LeaseId::to_wire),
            }),
            Self::Delete(range) => {
                let (key, range_end) = range.bounds();
                request_op::Request::RequestDeleteRange(wire::DeleteRangeRequest { key, range_end })
            }
        };
        wire::RequestOp { request: Some(request) }
    }
}

/// Atomic transaction: `then` if all compares hold, else `otherwise`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Conditions. Empty: they hold.
    pub compares: Vec<Compare>,
    /// Operations if the compares hold.
    pub then: Vec<Operation>,
    /// Operations if they do not.
    pub otherwise: Vec<Operation>,
}

impl Transaction {
    fn into_wire(self) -> wire::TxnRequest {
        wire::TxnRequest {
            compare: self.compares.into_iter().map(compare).collect(),
            success: self.then.into_iter().map(Operation::into_wire).collect(),
            failure: self.otherwise.into_iter().map(Operation::into_wire).collect(),
        }
    }
}

fn compare(compare: Compare) -> wire::Compare {
    wire::Compare {
        result: wire::compare::CompareResult::Equal.into(),
        target: wire::compare::CompareTarget::Mod.into(),
        key: compare.key,
        target_union: Some(wire::compare::TargetUnion::ModRevision(wire::to_wire(compare.revision))),
    }
}

/// Result of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The compares held.
    pub succeeded: bool,
    /// The transaction's own revision, or the cluster's current one if it changed nothing.
    pub revision: u64,
    /// One for each operation of the branch that was carried out.
    pub answers: Vec<Answer>,
}

/// Result of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The page that was read.
    Got(Page),
    /// The key was put.
    Put,
    /// Number of keys that were removed.
    Deleted(u64),
}

impl Answer {
    fn from_wire(response: wire::ResponseOp) -> Result<Self, Error> {
        match response.response {
            Some(response_op::Response::ResponseRange(range)) => Ok(Self::Got(Page::from_wire(range))),
            Some(response_op::Response::ResponsePut(_)) => Ok(Self::Put),
            Some(response_op::Response::ResponseDeleteRange(range)) => {
                Ok(Self::Deleted(wire::from_wire(range.deleted)))
            }
            None => Err(Error::Protocol("an operation without an answer".to_owned())),
        }
    }
}

impl Client {
    /// Carries out a transaction atomically; compares that do not hold are no error.
    ///
    /// # Errors
    /// [`Error`]: [`Error::TooLarge`] above [`MAX_REQUEST_BYTES`] or [`MAX_OPERATIONS`] (a member may allow less),
    /// [`Error::LeaseGone`] if a put names a lease that expired.
    pub async fn transact(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let access = access(&transaction);
        let request = transaction.into_wire();
        check(&request)?;
        let answer = self
            .connection
            .call(access, |session| {
                let request = session.request(request.clone());
                async move { kv(session.channel()).txn(request).await }
            })
            .await?
            .into_inner();
        let answers: Result<_, _> = answer.responses.into_iter().map(Answer::from_wire).collect();
        Ok(Outcome {
            succeeded: answer.succeeded,
            revision: wire::revision(answer.header.as_ref()),
            answers: answers?,
        })
    }

    /// Sets a key; returns the revision that did it.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<u64, Error> {
        self.write(Operation::Put { key: key.into(), value: value.into(), lease: None }).await
    }

    /// Removes a key; returns the revision after that. Removing an absent key is no error.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, key: impl Into<Vec<u8>>) -> Result<u64, Error> {
        self.write(Operation::Delete(Range::key(key))).await
    }

    async fn write(&self, operation: Operation) -> Result<u64, Error> {
        let transaction = Transaction { then: vec![operation], ..Transaction::default() };
        Ok(self.transact(transaction).await?.revision)
    }
}

fn access(transaction: &Transaction) -> Access {
    let reads = |operations: &[Operation]| operations.iter().all(|one| matches!(one, Operation::Get(_)));
    if reads(&transaction.then) && reads(&transaction.otherwise) { Access::Read } else { Access::Write }
}

fn check(request: &wire::TxnRequest) -> Result<(), Error> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    if operations > MAX_OPERATIONS {
        return Err(Error::TooLarge(format!(
            "{operations} operations, at most {MAX_OPERATIONS} are allowed"
        )));
    }
    match request.encoded_len() {
        bytes if bytes > MAX_REQUEST_BYTES => {
            Err(Error::TooLarge(format!("{bytes} bytes, at most {MAX_REQUEST_BYTES} are allowed")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> Operation {
        Operation::Put { key: b"k".to_vec(), value: vec![0; bytes], lease: None }
    }

    fn checked(then: Vec<Operation>) -> Result<(), Error> {
        check(&Transaction { then, ..Transaction::default() }.into_wire())
    }

    #[test]
    fn the_limits_are_those_of_a_member() {
        assert_eq!(checked(vec![put(1); MAX_OPERATIONS]), Ok(()));
        assert!(matches!(checked(vec![put(1); MAX_OPERATIONS + 1]), Err(Error::TooLarge(_))));
        assert_eq!(checked(vec![put(MAX_REQUEST_BYTES - 100)]), Ok(()));
        assert!(matches!(checked(vec![put(MAX_REQUEST_BYTES)]), Err(Error::TooLarge(_))));
    }

    #[test]
    fn a_transaction_that_only_reads_may_be_repeated() {
        let get = Operation::Get(Range::key("k"));
        let reads = Transaction { then: vec![get.clone()], ..Transaction::default() };
        assert_eq!(access(&reads), Access::Read);
        let writes = Transaction { then: vec![get], otherwise: vec![put(1)], ..Transaction::default() };
        assert_eq!(access(&writes), Access::Write);
    }
}
