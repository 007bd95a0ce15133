use std::time::Duration;

use super::*;

/// Records a verdict where nobody else checks. Returns true if the health changed.
fn record(verdicts: &mut Verdicts, backend: Uuid, node: &str, verdict: BackendVerdict, leaves: bool) -> bool {
    verdicts.record(backend, node, verdict, leaves);
    judge(verdicts, backend)
}

fn judge(verdicts: &mut Verdicts, backend: Uuid) -> bool {
    verdicts.judge(backend, &Checkers::new(), Instant::now())
}

/// Drops what a node said of others than `known`. Returns the backends that lost one, and whether their health changed.
fn retain(verdicts: &mut Verdicts, node: &str, known: &[Uuid]) -> Vec<(Uuid, bool)> {
    let lost = verdicts.retain_known(node, &known.iter().copied().collect());
    lost.into_iter().map(|backend| (backend, judge(verdicts, backend))).collect()
}

fn verdict(up: bool) -> BackendVerdict {
    BackendVerdict {
        up,
        reason: if up { String::new() } else { "connection refused".to_owned() },
        since_ms: 0,
    }
}

#[test]
fn what_was_known_before_stays_until_somebody_says_otherwise() {
    let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
    verdicts.restore_health(backend, &Health::NotChecked);
    assert_eq!(verdicts.health(backend), Health::Unknown);
    verdicts.restore_health(backend, &Health::Down("refused".into()));
    assert_eq!(verdicts.health(backend), Health::Down("refused".into()));
    assert!(record(&mut verdicts, backend, "a", verdict(true), false));
    assert_eq!(verdicts.health(backend), Health::Up);
}

#[test]
fn another_verdict_is_news_also_where_the_health_stays() {
    let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
    verdicts.record(backend, "a", verdict(true), false);
    judge(&mut verdicts, backend);
    assert!(verdicts.record(backend, "b", verdict(true), false));
    assert!(!judge(&mut verdicts, backend));
    assert!(!verdicts.record(backend, "b", verdict(true), false));
    let later = BackendVerdict { since_ms: 7, ..verdict(true) };
    assert!(verdicts.record(backend, "b", later, false));
    assert_eq!(retain(&mut verdicts, "b", &[]), [(backend, false)]);
}

#[test]
fn published_verdicts_are_shown_until_their_node_reports_and_count_for_nothing() {
    let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
    let published = ["a", "b"].map(|node| (node.to_owned(), verdict(false)));
    verdicts.restore_verdicts(backend, published.into());
    assert_eq!(verdicts.health(backend), Health::Unknown);
    assert_eq!(verdicts.of(backend).count(), 0);
    record(&mut verdicts, backend, "a", verdict(true), false);
    let shown = |verdicts: &Verdicts| {
        let shown = verdicts.shown(backend).into_iter().map(|(node, verdict)| (node, verdict.up));
        shown.collect::<Vec<_>>()
    };
    assert_eq!(shown(&verdicts), [("a".to_owned(), true), ("b".to_owned(), false)]);
    assert_eq!(retain(&mut verdicts, "b", &[]), [(backend, false)]);
    assert_eq!(shown(&verdicts), [("a".to_owned(), true)]);
}

#[test]
fn a_new_snapshot_of_a_node_voids_what_else_it_said() {
    let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
    assert!(record(&mut verdicts, backend, "a", verdict(false), false));
    assert!(!record(&mut verdicts, backend, "a", verdict(false), false));
    assert!(record(&mut verdicts, backend, "b", verdict(true), false));
    assert!(retain(&mut verdicts, "a", &[backend]).is_empty());
    assert_eq!(retain(&mut verdicts, "a", &[]), [(backend, true)]);
    assert!(retain(&mut verdicts, "a", &[]).is_empty());
    assert_eq!(verdicts.health(backend), Health::Up);
    assert_eq!(retain(&mut verdicts, "b", &[]), [(backend, false)], "nobody says anything: the health stays");
    assert_eq!(verdicts.health(backend), Health::Up);
}

#[test]
fn what_a_node_says_that_the_network_leaves_counts_until_another_one_speaks() {
    let (mut verdicts, backend) = (Verdicts::default(), Uuid::from_u128(1));
    record(&mut verdicts, backend, "a", verdict(true), false);
    verdicts.leave(backend, "a", true);
    assert!(!judge(&mut verdicts, backend), "it is the only one");
    assert!(verdicts.needs(backend, "a"));
    assert!(record(&mut verdicts, backend, "a", verdict(false), true), "it goes on checking");
    assert!(record(&mut verdicts, backend, "b", verdict(true), false));
    assert_eq!((verdicts.health(backend), verdicts.needs(backend, "a")), (Health::Up, false));
    assert!(!record(&mut verdicts, backend, "a", verdict(true), true));
    assert!(!record(&mut verdicts, backend, "a", verdict(false), true));
    verdicts.leave(backend, "a", false);
    assert!(judge(&mut verdicts, backend), "it stays after all, and is heard again");
    assert!(matches!(verdicts.health(backend), Health::Degraded(_)));
}

#[test]
fn a_backend_is_held_as_long_as_a_verdict_is_awaited_that_decides() {
    let (mut verdicts, backend, now) = (Verdicts::default(), Uuid::from_u128(1), Instant::now());
    let at = |seconds| now + Duration::from_secs(seconds);
    let checkers: Checkers = [("a", 5), ("b", 10)].map(|(node, until)| (node.to_owned(), at(until))).into();
    verdicts.restore_health(backend, &Health::Up);
    assert!(!verdicts.judge(backend, &checkers, now));
    assert_eq!(verdicts.next_overdue(), None, "nobody says that it is down");
    verdicts.record(backend, "a", verdict(false), false);
    assert!(verdicts.judge(backend, &checkers, now));
    assert!(matches!(verdicts.health(backend), Health::Degraded(_)));
    assert_eq!((verdicts.next_overdue(), verdicts.overdue(at(9)).len()), (Some(at(10)), 0));
    assert_eq!(verdicts.overdue(at(10)), [backend]);
    assert!(verdicts.judge(backend, &checkers, at(10)));
    assert_eq!((verdicts.next_overdue(), verdicts.is_held(backend)), (None, false));
    let text = "connection refused (from a); left out without a verdict in time: b";
    assert_eq!(verdicts.health(backend), Health::Down(text.to_owned()));
    verdicts.record(backend, "b", verdict(true), false);
    assert!(verdicts.judge(backend, &checkers, at(11)), "it may still speak");
    assert!(matches!(verdicts.health(backend), Health::Degraded(_)));
}
