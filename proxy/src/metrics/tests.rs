use super::*;

#[test]
fn series_are_bounded_and_nothing_is_lost() {
    let one = ListenerCounters { accepted: 1, bytes_in: 2, ..ListenerCounters::default() };
    let counters: HashMap<Uuid, ListenerCounters> =
        (0..LISTENERS + 5).map(|n| (Uuid::from_u128(n as u128), one)).collect();
    let series = bounded(&counters);
    assert_eq!(series.len(), LISTENERS + 1);
    assert_eq!(series.iter().map(|(_, it)| it.accepted).sum::<u64>(), LISTENERS as u64 + 5);
    let (name, others) = series.last().unwrap();
    assert_eq!((name.as_str(), others.bytes_in), ("other", 10));
}
