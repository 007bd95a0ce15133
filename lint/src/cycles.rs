//! Cycles between the top-level modules of a crate.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::violation::{Place, Violation};

/// Pairs of modules of which the first imports the second, with the place of one import.
pub(crate) type Edges<'a> = BTreeMap<(&'a str, &'a str), &'a Place>;

/// A violation for each cycle, the shortest cycles first.
pub(crate) fn violations(edges: &Edges<'_>) -> Vec<Violation> {
    cycles(edges).iter().filter_map(|cycle| violation(cycle, edges)).collect()
}

/// The shortest cycle through each edge that is part of one. A cycle begins with its least name.
fn cycles<'a>(edges: &Edges<'a>) -> Vec<Vec<&'a str>> {
    let cycles: BTreeSet<(usize, Vec<&str>)> = edges
        .keys()
        .filter_map(|(from, to)| shortest_path(edges, to, from))
        .map(|cycle| (cycle.len(), least_first(cycle)))
        .collect();
    cycles.into_iter().map(|(_, cycle)| cycle).collect()
}

fn shortest_path<'a>(edges: &Edges<'a>, start: &'a str, end: &str) -> Option<Vec<&'a str>> {
    let mut paths = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::from([start]);
    while let Some(path) = paths.pop_front() {
        let last = *path.last()?;
        if last == end {
            return Some(path);
        }
        for (_, next) in edges.keys().filter(|(from, _)| *from == last) {
            if seen.insert(next) {
                paths.push_back(path.iter().copied().chain([*next]).collect());
            }
        }
    }
    None
}

fn least_first(mut cycle: Vec<&str>) -> Vec<&str> {
    let least = (0..).zip(&cycle).min_by_key(|(_, name)| **name).map_or(0, |(at, _)| at);
    cycle.rotate_left(least);
    cycle
}

fn violation(cycle: &[&str], edges: &Edges<'_>) -> Option<Violation> {
    let following = cycle.iter().cycle().skip(1);
    let steps: Vec<(&str, &str)> = cycle.iter().copied().zip(following.copied()).collect();
    let places: Option<Vec<&Place>> = steps.iter().map(|step| edges.get(step).copied()).collect();
    let imports: Vec<String> = steps
        .iter()
        .zip(places.as_deref()?)
        .map(|((from, to), place)| format!("{from} imports {to} at {place}"))
        .collect();
    let names: Vec<&str> = cycle.iter().copied().chain(cycle.first().copied()).collect();
    let message = format!("cycle {} ({})", names.join(" -> "), imports.join(", "));
    places?.first().map(|place| place.violation(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Vec<String> {
        let place = Place::new("x.rs", 1);
        let edges: BTreeMap<(String, String), Place> =
            pairs.iter().map(|(from, to)| (((*from).to_owned(), (*to).to_owned()), place.clone())).collect();
        let edges: Edges<'_> =
            edges.iter().map(|((from, to), place)| ((from.as_str(), to.as_str()), place)).collect();
        cycles(&edges).iter().map(|cycle| cycle.join(" ")).collect()
    }

    #[test]
    fn every_cycle_is_found_once() {
        assert_eq!(found(&[("c", "a"), ("a", "b"), ("b", "c"), ("d", "a"), ("b", "a")]), ["a b", "a b c"]);
    }

    #[test]
    fn a_graph_without_cycles_has_none() {
        assert_eq!(found(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]), [""; 0]);
        assert_eq!(found(&[]), [""; 0]);
    }
}
