//! Compare-and-swap transactions, and the plain writes.

use prost::Message as _;

use crate::Client;
use crate::error::{Access, Error};
use crate::kv::{Page, Range, kv};
use crate::lease::LeaseId;
use crate::wire::{self, request_op, response_op};

/// Most compares of one transaction, and most operations on all levels of nested ones: etcd's default (`--max-txn-ops`).
pub const MAX_COMPARES: usize = 128;

/// Level at which a nested transaction holds the most operations.
const WIDTH: usize = MAX_COMPARES / 2;

/// Most operations of either branch of a transaction with so many compares: 4096 up to 64 compares, then fewer, and 128
/// with [`MAX_COMPARES`]. Those beyond 128 are sent as nested transactions, which a member carries out as one.
pub const fn max_operations(compares: usize) -> usize {
    let nested = width(compares) * MAX_COMPARES.saturating_sub(width(compares));
    if nested > MAX_COMPARES { nested } else { MAX_COMPARES }
}

/// Most nested transactions in a branch. Each takes as many operations as its level leaves of [`MAX_COMPARES`].
const fn width(compares: usize) -> usize {
    if compares > WIDTH { compares } else { WIDTH }
}

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
        let is_flat = self.then.len().max(self.otherwise.len()) <= MAX_COMPARES;
        let width = if is_flat { MAX_COMPARES } else { width(self.compares.len()) };
        wire::TxnRequest {
            compare: self.compares.into_iter().map(compare).collect(),
            success: branch(self.then, width),
            failure: branch(self.otherwise, width),
        }
    }
}

/// Operations of a branch, or nested transactions of them if they are more than `width`.
fn branch(operations: Vec<Operation>, width: usize) -> Vec<wire::RequestOp> {
    let operations: Vec<_> = operations.into_iter().map(Operation::into_wire).collect();
    if operations.len() <= width {
        return operations;
    }
    let size = MAX_COMPARES.saturating_sub(width).max(1);
    let nested = operations
        .chunks(size)
        .map(|some| wire::TxnRequest { success: some.to_vec(), ..wire::TxnRequest::default() });
    nested.map(|one| wire::RequestOp { request: Some(request_op::Request::RequestTxn(one)) }).collect()
}

/// Answers to the operations, of nested transactions too, in order.
fn flat(responses: Vec<wire::ResponseOp>, answers: &mut Vec<Answer>) -> Result<(), Error> {
    for one in responses {
        match one.response {
            Some(response_op::Response::ResponseTxn(nested)) => flat(nested.responses, answers)?,
            _ => answers.push(Answer::from_wire(one)?),
        }
    }
    Ok(())
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
            Some(response_op::Response::ResponseTxn(_)) | None => {
                Err(Error::Protocol("an operation without an answer".to_owned()))
            }
        }
    }
}

impl Client {
    /// Carries out a transaction atomically; compares that do not hold are no error.
    ///
    /// # Errors
    /// [`Error`]: [`Error::TooLarge`] above [`MAX_REQUEST_BYTES`], [`MAX_COMPARES`] or [`max_operations`] (a member may
    /// allow less), [`Error::LeaseGone`] if a put names a lease that expired.
    pub async fn transact(&self, transaction: Transaction) -> Result<Outcome, Error> {
        let access = access(&transaction);
        let request = checked(transaction)?;
        let answer = self
            .connection
            .call(access, |session| {
                let request = session.request(request.clone());
                async move { kv(session.channel()).txn(request).await }
            })
            .await?
            .into_inner();
        let mut answers = Vec::new();
        flat(answer.responses, &mut answers)?;
        Ok(Outcome { succeeded: answer.succeeded, revision: wire::revision(answer.header.as_ref()), answers })
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

/// The transaction's wire form, if a member takes it.
fn checked(transaction: Transaction) -> Result<wire::TxnRequest, Error> {
    let compares = transaction.compares.len();
    if compares > MAX_COMPARES {
        return Err(Error::TooLarge(format!("{compares} compares, at most {MAX_COMPARES} are allowed")));
    }
    let (operations, most) =
        (transaction.then.len().max(transaction.otherwise.len()), max_operations(compares));
    if operations > most {
        return Err(Error::TooLarge(format!("{operations} operations, at most {most} are allowed")));
    }
    let request = transaction.into_wire();
    match request.encoded_len() {
        bytes if bytes > MAX_REQUEST_BYTES => {
            Err(Error::TooLarge(format!("{bytes} bytes, at most {MAX_REQUEST_BYTES} are allowed")))
        }
        _ => Ok(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> Operation {
        Operation::Put { key: b"k".to_vec(), value: vec![0; bytes], lease: None }
    }

    fn transaction(compares: usize, then: usize, otherwise: usize) -> Transaction {
        Transaction {
            compares: vec![Compare { key: b"k".to_vec(), revision: 1 }; compares],
            then: vec![put(1); then],
            otherwise: vec![Operation::Get(Range::key("k")); otherwise],
        }
    }

    /// Operations in a member's count, which refuses more than [`MAX_COMPARES`]: the longest list of each level, summed up.
    fn counted(request: &wire::TxnRequest) -> usize {
        let below = request.success.iter().chain(&request.failure).filter_map(|one| match &one.request {
            Some(request_op::Request::RequestTxn(nested)) => Some(counted(nested)),
            _ => None,
        });
        let here = request.compare.len().max(request.success.len()).max(request.failure.len());
        here + below.max().unwrap_or(0)
    }

    #[test]
    fn the_limits_are_those_of_a_member() {
        for compares in 0..=MAX_COMPARES {
            let most = max_operations(compares);
            for (then, otherwise) in [(most, compares), (most, most), (129, 128), (128, most), (0, most)] {
                let request = checked(transaction(compares, then.min(most), otherwise.min(most))).unwrap();
                assert!(counted(&request) <= MAX_COMPARES, "{compares} {then} {otherwise}");
            }
            let above = checked(transaction(compares, most + 1, 0));
            assert!(matches!(above, Err(Error::TooLarge(_))), "{compares}");
        }
        assert_eq!(
            (max_operations(1), max_operations(64), max_operations(127), max_operations(128)),
            (4096, 4096, 128, 128)
        );
        assert!(matches!(checked(transaction(MAX_COMPARES + 1, 1, 0)), Err(Error::TooLarge(_))));
        let bytes = |bytes| checked(Transaction { then: vec![put(bytes)], ..Transaction::default() });
        assert!(bytes(MAX_REQUEST_BYTES - 100).is_ok());
        assert!(matches!(bytes(MAX_REQUEST_BYTES), Err(Error::TooLarge(_))));
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
