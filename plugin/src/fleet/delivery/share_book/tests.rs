use proptest::prelude::*;

use super::SharerState::{Dead, Drains, Serves};
use super::*;

const TREE: Uuid = Uuid::from_u128(1);
const LISTENER: Uuid = Uuid::from_u128(7);
const SECOND: Duration = Duration::from_secs(1);

fn serving<'a>(nodes: &[&'a str]) -> Vec<Sharer<'a>> {
    nodes.iter().map(|node| Sharer { node, state: Serves }).collect()
}

fn share(book: &mut ShareBook, limit: u32, nodes: &[&str], node: &str) -> u32 {
    book.share((TREE, LISTENER), limit, &serving(nodes), node, Instant::now()).unwrap()
}

fn report(book: &mut ShareBook, node: &str, in_force: u32, active: u32, above_total: u64) {
    book.report(LISTENER, node, ShareReport { in_force, active, above_total });
}

fn without(book: &ShareBook) -> Vec<String> {
    book.without(LISTENER).collect()
}

#[test]
fn parts_are_by_need_and_the_same_for_those_who_need_more() {
    let divided = |total, needs: &[(u32, u32)]| {
        let needs =
            needs.iter().map(|(connections, before)| Need { connections: *connections, before: *before });
        divided(total, &needs.collect::<Vec<_>>())
    };
    assert_eq!(divided(10, &[(1, 0), (2, 0), (3, 0)]), [1, 2, 3]);
    assert_eq!(divided(10, &[(100, 0), (2, 0), (100, 0)]), [4, 2, 4]);
    assert_eq!(divided(3, &[(100, 1), (101, 2)]), [1, 2]);
    assert_eq!(divided(3, &[(101, 2), (100, 1)]), [2, 1], "it stays");
    assert_eq!(divided(0, &[(5, 0)]), [0]);
    assert_eq!(divided(7, &[]), [0; 0]);
    assert_eq!(divided(u32::MAX, &[(u32::MAX, 0), (1, 0)]), [u32::MAX - 1, 1]);
}

#[test]
fn a_share_goes_to_who_needs_it_after_the_other_one_has_given_it_back() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let nodes = ["a", "b"];
    let shares = |book: &mut ShareBook| nodes.map(|node| share(book, 6, &nodes, node));
    assert_eq!(shares(&mut book), [3, 3]);
    assert!(!book.rebalance(LISTENER, now), "nobody has reported");
    report(&mut book, "a", 3, 3, 0);
    report(&mut book, "b", 3, 2, 7);
    assert!(!book.rebalance(LISTENER, now), "nobody is in need");
    report(&mut book, "a", 3, 3, 10);
    assert!(book.rebalance(LISTENER, now));
    assert_eq!(shares(&mut book), [3, 2], "b keeps what it has");
    report(&mut book, "a", 3, 3, 11);
    now += SECOND;
    assert!(!book.rebalance(LISTENER, now), "b has not confirmed it");
    report(&mut book, "b", 3, 2, 7);
    assert!(!book.rebalance(LISTENER, now));
    report(&mut book, "b", 2, 3, 7);
    assert!(!book.rebalance(LISTENER, now), "it still has three");
    report(&mut book, "b", 2, 2, 7);
    assert!(book.rebalance(LISTENER, now));
    assert_eq!(shares(&mut book), [4, 2]);
    report(&mut book, "a", 4, 4, 11);
    report(&mut book, "b", 2, 0, 7);
    report(&mut book, "a", 4, 4, 20);
    assert!(!book.rebalance(LISTENER, now), "once a second");
    now += SECOND;
    assert!(book.rebalance(LISTENER, now));
    assert_eq!(shares(&mut book), [4, 0]);
}

#[test]
fn who_comes_gets_what_is_free_and_who_is_gone_frees_its_own() {
    let (mut book, now) = (ShareBook::default(), Instant::now());
    assert_eq!(share(&mut book, 6, &["a"], "a"), 6);
    report(&mut book, "a", 6, 5, 0);
    assert_eq!(share(&mut book, 6, &["a", "b"], "b"), 0, "a may have all of it");
    assert_eq!(without(&book), ["b"]);
    report(&mut book, "b", 0, 0, 0);
    assert!(book.rebalance(LISTENER, now));
    assert_eq!(share(&mut book, 6, &["a", "b"], "a"), 5);
    report(&mut book, "a", 5, 5, 0);
    assert!(book.rebalance(LISTENER, now + SECOND));
    assert_eq!(share(&mut book, 6, &["a", "b"], "b"), 1);
    assert_eq!(without(&book), ["b"], "it is not in force");
    report(&mut book, "b", 1, 0, 0);
    assert!(without(&book).is_empty());
    assert_eq!(share(&mut book, 6, &["b"], "b"), 1);
    assert!(book.rebalance(LISTENER, now + 2 * SECOND));
    assert_eq!(share(&mut book, 6, &["b"], "b"), 6);
    assert_eq!(book.share((TREE, LISTENER), 6, &serving(&["b"]), "a", now), None);
    book.retain(TREE, |listener| *listener != LISTENER);
    assert!(book.listeners.is_empty());
}

#[test]
fn a_node_without_share_gets_one_as_soon_as_others_need_less() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let nodes = ["a", "b"];
    assert_eq!(share(&mut book, 6, &["a"], "a"), 6);
    report(&mut book, "a", 6, 6, 0);
    let mut shares = |book: &mut ShareBook, active: u32| {
        nodes.map(|node| {
            let in_force = share(book, 6, &nodes, node);
            report(book, node, in_force, if node == "a" { active } else { 0 }, 0);
            now += SECOND;
            book.rebalance(LISTENER, now);
            share(book, 6, &nodes, node)
        })
    };
    for _ in 0..4 {
        assert_eq!(shares(&mut book, 6), [6, 0]);
    }
    for _ in 0..4 {
        shares(&mut book, 2);
    }
    assert_eq!(shares(&mut book, 2), [4, 2]);
    assert!(without(&book).is_empty());
}

fn share_of(
    book: &mut ShareBook,
    limit: u32,
    sharers: &[(&str, SharerState)],
    node: &str,
    now: Instant,
) -> u32 {
    let sharers: Vec<Sharer<'_>> =
        sharers.iter().map(|(node, state)| Sharer { node, state: *state }).collect();
    book.share((TREE, LISTENER), limit, &sharers, node, now).unwrap()
}

/// Reports of both nodes that have what they were dealt, and the next deal, some seconds later.
fn next(
    book: &mut ShareBook,
    limit: u32,
    sharers: &[(&str, SharerState); 2],
    active: [u32; 2],
    now: &mut Instant,
) -> [u32; 2] {
    for ((node, state), active) in sharers.iter().zip(active) {
        let in_force = share_of(book, limit, sharers, node, *now);
        if *state != Dead {
            report(book, node, in_force, active, 0);
        }
    }
    *now += SECOND;
    book.rebalance(LISTENER, *now);
    sharers.map(|(node, _)| share_of(book, limit, sharers, node, *now))
}

#[test]
fn a_node_that_drains_gives_its_share_up_whatever_the_limit() {
    for active in [0, 1] {
        let (mut book, mut now) = (ShareBook::default(), Instant::now());
        assert_eq!(share_of(&mut book, 1, &[("a", Serves)], "a", now), 1);
        let serve = [("a", Serves), ("b", Serves)];
        for _ in 0..10 {
            assert_eq!(next(&mut book, 1, &serve, [active, 0], &mut now), [1, 0]);
        }
        let drain = [("a", Drains), ("b", Serves)];
        let began = now;
        while now < began + HANDOVER - SECOND {
            assert_eq!(
                next(&mut book, 1, &drain, [active, 0], &mut now),
                [1, 0],
                "OVN still sends it clients"
            );
        }
        for _ in 0..2 {
            next(&mut book, 1, &drain, [active, 0], &mut now);
        }
        let rest = next(&mut book, 1, &drain, [active, 0], &mut now);
        assert_eq!(rest, [0, 1 - active], "its connections go on, and count");
        next(&mut book, 1, &drain, [0, 0], &mut now);
        assert_eq!(next(&mut book, 1, &drain, [0, 0], &mut now), [0, 1]);
        assert_eq!(without(&book), ["a"]);
        // The drain is called off.
        for _ in 0..2 {
            assert_eq!(next(&mut book, 1, &serve, [0, 1], &mut now), [0, 1], "one has to have it");
        }
    }
}

#[test]
fn a_dead_node_gives_its_share_up_while_others_live_and_one_that_returns_gets_one_again() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let serve = [("a", Serves), ("b", Serves)];
    for _ in 0..3 {
        assert_eq!(next(&mut book, 10, &serve, [5, 1], &mut now), [5, 5]);
    }
    let dead = [("a", Dead), ("b", Serves)];
    let died = now;
    while now < died + HANDOVER - SECOND {
        assert_eq!(next(&mut book, 10, &dead, [5, 5], &mut now), [5, 5]);
    }
    for _ in 0..2 {
        next(&mut book, 10, &dead, [5, 5], &mut now);
    }
    assert_eq!(next(&mut book, 10, &dead, [5, 5], &mut now), [0, 10]);
    // It was cut off, and has its connections still.
    share_of(&mut book, 10, &serve, "a", now);
    report(&mut book, "a", 5, 5, 0);
    for _ in 0..8 {
        next(&mut book, 10, &serve, [5, 5], &mut now);
    }
    assert_eq!(next(&mut book, 10, &serve, [5, 5], &mut now), [5, 5]);

    let all_dead = [("a", Dead), ("b", Dead)];
    for _ in 0..10 {
        assert_eq!(next(&mut book, 10, &all_dead, [5, 5], &mut now), [5, 5], "nobody could have more");
    }
}

#[test]
fn a_node_that_is_empty_when_it_dies_in_its_drain_holds_nothing_back() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let sharers = |state| [("a", state), ("b", Serves)];
    next(&mut book, 10, &sharers(Serves), [5, 0], &mut now);
    for _ in 0..10 {
        next(&mut book, 10, &sharers(Drains), [5, 0], &mut now);
    }
    assert_eq!(next(&mut book, 10, &sharers(Drains), [5, 0], &mut now), [0, 5], "five connections go on");
    for _ in 0..10 {
        next(&mut book, 10, &sharers(Dead), [5, 0], &mut now);
    }
    assert_eq!(next(&mut book, 10, &sharers(Dead), [5, 0], &mut now), [0, 10]);
}

#[test]
fn a_lowered_limit_is_dealt_at_once() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let serve = [("a", Serves), ("b", Serves)];
    assert_eq!(next(&mut book, 10, &serve, [5, 5], &mut now), [5, 5]);
    // Nobody has reported anything since.
    assert_eq!(serve.map(|(node, _)| share_of(&mut book, 4, &serve, node, now)), [2, 2]);
    assert_eq!(serve.map(|(node, _)| share_of(&mut book, 2, &serve, node, now)), [1, 1], "on its way or not");
    assert_eq!(
        serve.map(|(node, _)| share_of(&mut book, 10, &serve, node, now)),
        [1, 1],
        "raised as nodes report"
    );
    for _ in 0..3 {
        next(&mut book, 10, &serve, [1, 1], &mut now);
    }
    assert_eq!(next(&mut book, 10, &serve, [1, 1], &mut now), [5, 5]);
}

#[test]
fn shares_stay_where_nothing_worth_while_is_gained_and_nodes_do_not_come_and_go_by_need() {
    let (mut book, mut now) = (ShareBook::default(), Instant::now());
    let nodes = ["a", "b"];
    let shares = |book: &mut ShareBook, limit| nodes.map(|node| share(book, limit, &nodes, node));
    let is_dealt = |book: &mut ShareBook, limit, active: [u32; 2], above: [u64; 2], now: Instant| {
        let dealt = shares(book, limit);
        for ((node, in_force), (active, above)) in nodes.iter().zip(dealt).zip(active.into_iter().zip(above))
        {
            report(book, node, in_force, active, above);
        }
        book.rebalance(LISTENER, now)
    };
    // Both are full, of an odd number, and turn clients away in turns.
    let [a, b] = shares(&mut book, 1_001);
    for round in 0..20_u64 {
        now += SECOND;
        let above = [10 * round + round % 2 * 7, 10 * round + (round + 1) % 2 * 7];
        assert!(!is_dealt(&mut book, 1_001, [a, b], above, now), "{round}");
    }
    // One has a place or two that the other could use.
    for round in 20..40 {
        now += SECOND;
        assert!(!is_dealt(&mut book, 1_001, [a, b - 2], [10 * round, 200], now), "{round}");
    }

    let mut book = ShareBook::default();
    assert_eq!(shares(&mut book, 2), [1, 1]);
    is_dealt(&mut book, 2, [1, 0], [0, 0], now);
    let mut changes = 0;
    let (mut above, mut members) = ([0, 0], [true, true]);
    for round in 0_u64..120 {
        now += SECOND;
        // Each in turn has all of the clients.
        let busy = usize::from(round / 3 % 2 == 1);
        above[busy] += 5;
        let dealt = shares(&mut book, 2);
        let active = if busy == 0 { [dealt[0], 0] } else { [0, dealt[1]] };
        is_dealt(&mut book, 2, active, above, now);
        let is_member = shares(&mut book, 2).map(|share| share > 0);
        changes += u32::from(is_member != members);
        members = is_member;
    }
    assert!((1..=9).contains(&changes), "{changes} changes of the row in two minutes");
}

/// A node as it is: shares arrive late, and connections come and go.
#[derive(Clone, Debug, Default)]
struct Node {
    on_the_way: Vec<u32>,
    in_force: u32,
    active: u32,
    refused: u64,
    state: SharerState,
    has_reported: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish,
    Arrive(usize),
    Connect(usize, u32),
    Close(usize, u32),
    Report(usize),
    Rebalance,
    Become(usize, SharerState),
    Limit(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0_usize..3;
    let state = prop_oneof![3 => Just(Serves), 2 => Just(Drains), 1 => Just(Dead)];
    prop_oneof![
        12 => Just(Step::Publish),
        16 => node.clone().prop_map(Step::Arrive),
        16 => (node.clone(), 1_u32..8).prop_map(|(node, count)| Step::Connect(node, count)),
        8 => (node.clone(), 1_u32..8).prop_map(|(node, count)| Step::Close(node, count)),
        16 => node.clone().prop_map(Step::Report),
        12 => Just(Step::Rebalance),
        2 => (node, state).prop_map(|(node, state)| Step::Become(node, state)),
        1 => (0_u32..20).prop_map(Step::Limit),
    ]
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn shares(book: &mut ShareBook, limit: u32, nodes: &[Node; 3], now: Instant) -> [u32; 3] {
    let sharers: Vec<(&str, SharerState)> =
        NAMES.into_iter().zip(nodes).map(|(name, node)| (name, node.state)).collect();
    NAMES.map(|name| share_of(book, limit, &sharers, name, now))
}

proptest! {
    /// Whatever is delayed: the sum of the shares is never above the limit, and that of the connections neither, unless a
    /// node was dead, or the limit lowered.
    #[test]
    fn the_limit_is_kept_whatever_comes_when(
        mut limit in 0_u32..20,
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let (mut book, mut now) = (ShareBook::default(), Instant::now());
        let mut nodes: [Node; 3] = Default::default();
        let mut is_exact = true;
        let dealt = shares(&mut book, limit, &nodes, now);
        for (node, share) in nodes.iter_mut().zip(dealt) {
            node.on_the_way.push(share);
        }
        for step in steps {
            match step {
                Step::Publish => {
                    let dealt = shares(&mut book, limit, &nodes, now);
                    prop_assert!(dealt.iter().sum::<u32>() <= limit, "{dealt:?} of {limit}");
                    for (node, share) in nodes.iter_mut().zip(dealt).filter(|(node, _)| node.state != Dead) {
                        node.on_the_way.push(share);
                    }
                }
                Step::Arrive(node) if !nodes[node].on_the_way.is_empty() => {
                    nodes[node].in_force = nodes[node].on_the_way.remove(0);
                }
                Step::Arrive(_) => {}
                Step::Connect(node, count) => for _ in 0..count {
                    let node = &mut nodes[node];
                    if node.active < node.in_force { node.active += 1 } else { node.refused += 1 }
                },
                Step::Close(node, count) => nodes[node].active = nodes[node].active.saturating_sub(count),
                Step::Report(node) if nodes[node].state != Dead => {
                    nodes[node].has_reported = true;
                    let Node { in_force, active, refused, .. } = nodes[node];
                    report(&mut book, NAMES[node], in_force, active, refused);
                }
                Step::Report(_) => {}
                Step::Rebalance => {
                    now += SECOND;
                    book.rebalance(LISTENER, now);
                }
                // One that has not reported for seconds knows no shares.
                Step::Become(node, state) if state == Serves || nodes[node].has_reported => {
                    is_exact &= state != Dead;
                    nodes[node].state = state;
                    shares(&mut book, limit, &nodes, now);
                }
                Step::Become(..) => {}
                Step::Limit(other) => {
                    is_exact &= other >= limit;
                    limit = other;
                }
            }
            let active: u32 = nodes.iter().map(|node| node.active).sum();
            prop_assert!(!is_exact || active <= limit, "{active} of {limit}: {nodes:?} {book:?}");
        }
        // Once all is quiet, one node that needs all of it gets all of it.
        for node in &mut nodes {
            (node.active, node.state) = (0, Serves);
        }
        for _ in 0..12 {
            let dealt = shares(&mut book, limit, &nodes, now);
            for ((node, name), share) in nodes.iter_mut().zip(NAMES).zip(dealt) {
                node.on_the_way.clear();
                node.in_force = share;
                report(&mut book, name, node.in_force, node.active, node.refused);
            }
            nodes[0].refused += 1_000;
            nodes[0].active = nodes[0].in_force;
            now += MEMBERSHIP_PAUSE;
            book.rebalance(LISTENER, now);
        }
        prop_assert_eq!(nodes[0].in_force, limit, "{:?}", book);
    }
}
