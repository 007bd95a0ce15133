//! Changes of statuses from one observation of a tree to the next.

use uuid::Uuid;

use super::{HasStatus, Observation, Operating, Provisioning, Status, StatusCode, Statuses};
use crate::resources::{Kind, LoadBalancer, Tree, every_kind};

/// Change of the status of one resource.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusChange {
    /// Kind of the resource.
    pub kind: Kind,
    /// The resource.
    pub id: Uuid,
    /// Statuses before.
    pub before: (Provisioning, Operating),
    /// Status now.
    pub after: Status,
}

/// Changes of operating statuses, first bad verdicts on backends that have been OFFLINE, and changes of the load balancer's
/// provisioning status, children before their parents. The provisioning statuses of all others follow from writes to them.
pub fn status_changes(tree: &Tree, before: &Observation, after: &Observation) -> Vec<StatusChange> {
    if before.applied.is_none() && before.failure.is_none() {
        // Of what is new the load balancer says it: all below it came with it.
        return of_one_kind::<LoadBalancer>(tree, before, after);
    }
    let mut changes = Vec::new();
    if differs(before, after) {
        every_kind!(T => changes.push(of_one_kind::<T>(tree, before, after)));
    }
    changes.into_iter().rev().flatten().collect()
}

/// True unless two observations differ in nothing but what leaves all statuses as they are.
fn differs(before: &Observation, after: &Observation) -> bool {
    let (one, other) = (&before.carried, &after.carried);
    let (view, other_view) = (&one.view, &other.view);
    let is_same = before.applied == after.applied
        && before.failure == after.failure
        && before.reached == after.reached
        && one.refused == other.refused
        && one.decisions == other.decisions
        && one.standing == other.standing
        && one.unjudged == other.unjudged
        && one.caveats == other.caveats
        && one.chained == other.chained
        && view.nodes == other_view.nodes
        && view.proxied == other_view.proxied
        && view.health == other_view.health
        && view.inconclusive == other_view.inconclusive
        && view.trouble == other_view.trouble;
    !is_same
}

fn of_one_kind<T: HasStatus>(tree: &Tree, before: &Observation, after: &Observation) -> Vec<StatusChange> {
    let (before, after) = (Statuses::new(tree, before, None), Statuses::new(tree, after, None));
    let change = |record| {
        let (before, after) = (T::status(&before, record), T::status(&after, record));
        let is_root = T::PARENT.is_none();
        // A backend that waits for its first good probe is OFFLINE, too.
        let is_found_down = after.code == StatusCode::Down && before.code != StatusCode::Down;
        let is_changed = before.operating != after.operating
            || is_found_down
            || is_root && before.provisioning != after.provisioning;
        is_changed.then_some(StatusChange {
            kind: T::KIND,
            id: record.id,
            before: (before.provisioning, before.operating),
            after,
        })
    };
    T::records(tree).filter(|record| !record.deleting).filter_map(|record| change(record)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, POOL, tree};
    use crate::status::{ApplyFailure, BackendVerdict, Carried, FailureScope, Health};

    fn in_force(down: &[Uuid]) -> Observation {
        let mut carried = Carried::default();
        for id in BACKENDS {
            let health = if down.contains(&id) { Health::Down("timed out".to_owned()) } else { Health::Up };
            carried.view.health.insert(id, health);
        }
        Observation { applied: Some(Arc::new(tree())), carried: Arc::new(carried), ..Observation::default() }
    }

    fn changed(before: &Observation, after: &Observation) -> Vec<(Kind, Uuid, Operating, Operating)> {
        let changes = status_changes(&tree(), before, after);
        let of = |change: StatusChange| (change.kind, change.id, change.before.1, change.after.operating);
        changes.into_iter().map(of).collect()
    }

    #[test]
    fn what_is_down_is_told_before_what_stands_above_it() {
        let changes = changed(&in_force(&[]), &in_force(&BACKENDS[1..2]));
        let (online, degraded) = (Operating::Online, Operating::Degraded);
        let expected = [
            (Kind::Backend, BACKENDS[1], online, Operating::Offline),
            (Kind::Listener, LISTENER, online, degraded),
            (Kind::Pool, POOL, online, degraded),
            (Kind::LoadBalancer, LOAD_BALANCER, online, degraded),
        ];
        assert_eq!(changes, expected);
        let changes = status_changes(&tree(), &in_force(&[]), &in_force(&BACKENDS[1..2]));
        assert_eq!(changes[0].after.reason, "checked and found down: timed out");
    }

    #[test]
    fn a_backend_that_was_never_up_is_told_when_it_is_found_down() {
        let mut waiting = in_force(&[]);
        Arc::make_mut(&mut waiting.carried).view.health.insert(BACKENDS[1], Health::Unknown);
        let down = in_force(&BACKENDS[1..2]);
        let changes = changed(&waiting, &down);
        assert_eq!(changes[0], (Kind::Backend, BACKENDS[1], Operating::Offline, Operating::Offline));
        let again = changed(&down, &waiting);
        assert!(again.iter().all(|(kind, ..)| *kind != Kind::Backend), "{again:?}");
    }

    #[test]
    fn a_failure_is_told_of_the_load_balancer_alone() {
        let failure = ApplyFailure {
            reason: "no such switch".to_owned(),
            next_attempt_at: 0,
            scope: FailureScope::Tree,
        };
        let failed = Observation { failure: Some(failure), ..in_force(&[]) };
        let changes = status_changes(&tree(), &in_force(&[]), &failed);
        let [change] = changes.as_slice() else { panic!("{changes:?}") };
        assert_eq!((change.kind, change.before.0), (Kind::LoadBalancer, Provisioning::Active));
        assert_eq!(change.after.provisioning, Provisioning::Error);
    }

    #[test]
    fn what_leaves_all_statuses_as_they_are_is_no_change() {
        let before = in_force(&[]);
        let mut other = before.clone();
        let verdict = BackendVerdict { up: true, reason: String::new(), since_ms: 7 };
        let view = &mut Arc::make_mut(&mut other.carried).view;
        view.verdicts.entry(BACKENDS[0]).or_default().insert("node-1".to_owned(), verdict);
        assert!(!differs(&before, &other));
        assert!(changed(&before, &other).is_empty());
        // Another object of the same content, as after a repair.
        assert!(changed(&in_force(&[]), &in_force(&[])).is_empty());
    }
}
