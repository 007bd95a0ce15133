//! Fencing of writers: of the writers of one installation, only the newest may write to the northbound database.
//!
//! Each writer has a *term* as its fencing token, higher than those of its predecessors. A new writer first raises the fence to its
//! term ([`raise`]); each of its transactions begins with a check of the fence ([`guard`]). Transactions of older writers, however
//! late they arrive, are refused by the server ([`TransactError::is_fenced`](ovsdb::error::TransactError::is_fenced)).
//!
//! The fence is one key in `external_ids` of the row of `NB_Global`, so that it is part of the replicated content and every server of
//! a cluster enforces it. The row belongs to OVN: nothing but the key is changed.

use ovsdb::collections::{Map, Set};
use thiserror::Error;
use uuid::Uuid;

use super::Installation;
use crate::{NbGlobal, Northbound};
use ovsdb::column::Column as _;
use ovsdb::operation::{Columns, Condition, Mutation, Operation};
use ovsdb::replica::TableRow as _;

const COLUMN: &str = "external_ids";
/// Highest valid term.
const MAX_TERM: u64 = u64::MAX / 2;

/// Reason why the fence cannot be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FenceError {
    /// A newer writer has raised it.
    #[error("another writer has taken over: the fence in the northbound database is at term {found}")]
    Superseded {
        /// Term of the fence.
        found: u64,
    },
    /// There is no row for it. OVN inserts the row when it starts.
    #[error("NB_Global has no row: start ovn-northd, or run ovn-nbctl init")]
    NoGlobal,
}

/// Key in `external_ids` of `NB_Global` whose value is the term, as a decimal number.
#[must_use]
pub fn key(installation: Installation) -> String {
    format!("fiberlb:fence:{}", installation.0)
}

/// Plans to raise the fence to `term`; `None` if it is there already. If `external_ids` is not what `nb` holds, the transaction is
/// refused as [fenced](ovsdb::error::TransactError::is_fenced): plan again from an updated replica. A value that is not a number,
/// set by hand, counts as absent.
///
/// # Errors
/// [`FenceError`].
pub fn raise(
    installation: Installation,
    term: u64,
    nb: &Northbound,
) -> Result<Option<Vec<Operation>>, FenceError> {
    let (uuid, global) = global(nb).ok_or(FenceError::NoGlobal)?;
    match current_term(installation, global) {
        Some(found) if found > term => return Err(FenceError::Superseded { found }),
        Some(found) if found == term => return Ok(None),
        _ => {}
    }
    let key = key(installation);
    let unchanged = Columns::from_iter([(COLUMN.to_owned(), global.external_ids.write())]);
    // An `insert` alone would not change a key that is present.
    let mutations = vec![
        Mutation::delete(COLUMN, Set::from([key.clone()])),
        Mutation::insert(COLUMN, Map::from([(key, term.to_string())])),
    ];
    Ok(Some(vec![
        Operation::wait(NbGlobal::TABLE, vec![Condition::row(uuid)], vec![COLUMN], vec![unchanged]),
        Operation::mutate(NbGlobal::TABLE, uuid, mutations),
    ]))
}

/// Guard that must be the first operation of each transaction of `term`: met while the fence is at exactly this term, whatever else is
/// in `external_ids`. Never met while `NB_Global` has no row.
#[must_use]
pub fn guard(installation: Installation, term: u64, nb: &Northbound) -> Operation {
    let uuid = global(nb).map_or_else(Uuid::nil, |(uuid, _)| uuid);
    let at_term = Map::from([(key(installation), term.to_string())]);
    let conditions = vec![Condition::row(uuid), Condition::includes(COLUMN, at_term)];
    let found = Columns::from_iter([("_uuid".to_owned(), uuid.write())]);
    Operation::wait(NbGlobal::TABLE, conditions, vec!["_uuid"], vec![found])
}

/// Row of `NB_Global`.
fn global(nb: &Northbound) -> Option<(Uuid, &NbGlobal)> {
    nb.nb_global.iter().next().map(|(uuid, row)| (*uuid, row))
}

/// Term of the fence.
fn current_term(installation: Installation, global: &NbGlobal) -> Option<u64> {
    let key = key(installation);
    let text = global.external_ids.get(&key)?;
    // Any other notation would never meet the guard; and there must always be a higher term.
    let term = text.parse::<u64>().ok().filter(|term| term.to_string() == *text && *term <= MAX_TERM);
    if term.is_none() {
        tracing::warn!(%key, value = %text, "invalid fence in NB_Global's external_ids; treating it as absent");
    }
    term
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
    use ovsdb::value;

    const OURS: Installation = Installation(Uuid::from_u128(1));
    const THEIRS: Installation = Installation(Uuid::from_u128(2));

    fn nb(pairs: &[(String, &str)]) -> Northbound {
        let pairs = pairs.iter().map(|(key, value)| (json!(key), json!(value)));
        let row = Map::from_iter([(COLUMN.to_owned(), value::map(pairs))]);
        let update = RowUpdate {
            table: NbGlobal::TABLE.to_owned(),
            uuid: Uuid::from_u128(7),
            change: RowChange::Insert(row),
        };
        let mut nb = Northbound::new("owner");
        nb.apply(vec![update]).unwrap();
        nb
    }

    #[test]
    fn raising_compares_all_and_changes_one_key() {
        let nb = nb(&[("other".to_owned(), "x"), (key(OURS), "3")]);
        let operations = raise(OURS, 5, &nb).unwrap().unwrap();
        let row = json!([["_uuid", "==", ["uuid", Uuid::from_u128(7)]]]);
        let all = json!(["map", [[key(OURS), "3"], ["other", "x"]]]);
        let expected = json!([
            {"op": "wait", "timeout": 0, "table": "NB_Global", "where": row, "columns": ["external_ids"], "until": "==",
                "rows": [{"external_ids": all}]},
            {"op": "mutate", "table": "NB_Global", "where": row, "mutations": [
                ["external_ids", "delete", ["set", [key(OURS)]]],
                ["external_ids", "insert", ["map", [[key(OURS), "5"]]]],
            ]},
        ]);
        assert_eq!(serde_json::to_value(operations).unwrap(), expected);
    }

    #[test]
    fn a_guard_looks_at_its_own_key_alone() {
        let nb = nb(&[("other".to_owned(), "x")]);
        let uuid = json!(["uuid", Uuid::from_u128(7)]);
        let expected = json!({"op": "wait", "timeout": 0, "table": "NB_Global", "columns": ["_uuid"], "until": "==",
            "rows": [{"_uuid": uuid}],
            "where": [["_uuid", "==", uuid], ["external_ids", "includes", ["map", [[key(OURS), "5"]]]]]});
        assert_eq!(serde_json::to_value(guard(OURS, 5, &nb)).unwrap(), expected);
    }

    #[test]
    fn what_somebody_broke_by_hand_counts_as_absent() {
        for broken in ["", "x", "-1", "5.0", "99999999999999999999"] {
            assert!(raise(OURS, 5, &nb(&[(key(OURS), broken)])).unwrap().is_some(), "{broken}");
        }
    }

    #[test]
    fn without_the_row_there_is_no_fence() {
        assert_eq!(raise(OURS, 5, &Northbound::new("owner")), Err(FenceError::NoGlobal));
    }

    proptest! {
        #[test]
        fn what_no_plugin_writes_counts_as_none(standing in MAX_TERM + 1.., term in 1..MAX_TERM) {
            for text in [standing.to_string(), format!("0{term}"), format!("+{term}"), "x".to_owned()] {
                let raised = raise(OURS, term, &nb(&[(key(OURS), &text)]));
                prop_assert!(matches!(raised, Ok(Some(_))), "{text}: {raised:?}");
            }
        }

        #[test]
        fn a_fence_only_ever_rises(standing in 0..=MAX_TERM, term: u64, theirs: u64) {
            let (ours, theirs) = (standing.to_string(), theirs.to_string());
            let raised = raise(OURS, term, &nb(&[(key(OURS), &ours), (key(THEIRS), &theirs)]));
            match raised {
                Err(FenceError::Superseded { found }) => prop_assert!(found == standing && standing > term),
                Ok(None) => prop_assert_eq!(standing, term),
                Ok(Some(_)) => prop_assert!(standing < term),
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
