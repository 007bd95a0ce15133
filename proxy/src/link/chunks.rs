//! Splits the node's reports into messages within the plugin's limits: at most 1 MiB, at most 10,000 entries.

use fiberlb_proto::agent::v1;
use v1::node_message::Message;

/// Longest text for people, in bytes: the plugin cuts them there.
const TEXT_BYTES: usize = 256;
/// Results or verdicts in a message: an id and a text each, some 330 bytes.
const WITH_TEXT: usize = 2_000;
/// Counters in a message: an id, some numbers, a number for each reason, and of backends a text, some 1,200 bytes at most.
const OF_NUMBERS: usize = 800;

/// Most verdicts in a snapshot.
const SNAPSHOT: usize = 100_000;

/// Messages that acknowledge a revision. There is always one, also without results.
#[must_use]
pub(super) fn acks(revision: u64, results: Vec<v1::Result>) -> Vec<Message> {
    let short = |result: v1::Result| v1::Result { error: cut(result.error), ..result };
    let results: Vec<v1::Result> = results.into_iter().map(short).collect();
    let ack = |results: &[v1::Result]| Message::Ack(v1::Ack { revision, results: results.to_vec() });
    if results.is_empty() { vec![ack(&[])] } else { results.chunks(WITH_TEXT).map(ack).collect() }
}

/// Messages with the snapshot of the verdicts. There is always one, also without verdicts. Above the plugin's
/// limit, verdicts on backends that are up are left out: unknown counts as up.
#[must_use]
pub(super) fn first_verdicts(
    mut all: Vec<v1::Verdict>,
    mut inconclusive: Vec<v1::InconclusiveCheck>,
) -> Vec<Message> {
    if all.len() > SNAPSHOT {
        all.sort_by_key(|verdict| verdict.up);
        all.truncate(SNAPSHOT);
    }
    inconclusive.truncate(SNAPSHOT);
    let mut parts = parts(all, inconclusive);
    if parts.is_empty() {
        parts.push(v1::Verdicts::default());
    }
    let count = parts.len();
    let parts = parts.into_iter().enumerate();
    parts
        .map(|(index, part)| v1::Verdicts { first: index == 0, more: index + 1 < count, ..part })
        .map(Message::Verdicts)
        .collect()
}

/// Verdicts after the snapshot.
#[must_use]
pub(super) fn verdicts(changed: Vec<v1::Verdict>, inconclusive: Vec<v1::InconclusiveCheck>) -> Vec<Message> {
    parts(changed, inconclusive).into_iter().map(Message::Verdicts).collect()
}

fn parts(verdicts: Vec<v1::Verdict>, inconclusive: Vec<v1::InconclusiveCheck>) -> Vec<v1::Verdicts> {
    let verdicts: Vec<v1::Verdict> =
        verdicts.into_iter().map(|verdict| v1::Verdict { reason: cut(verdict.reason), ..verdict }).collect();
    let inconclusive: Vec<v1::InconclusiveCheck> = inconclusive
        .into_iter()
        .map(|check| v1::InconclusiveCheck { reason: cut(check.reason), ..check })
        .collect();
    let of_verdicts = |part: &[v1::Verdict]| v1::Verdicts { verdicts: part.to_vec(), ..Default::default() };
    let of_checks =
        |part: &[v1::InconclusiveCheck]| v1::Verdicts { inconclusive: part.to_vec(), ..Default::default() };
    let verdicts = verdicts.chunks(WITH_TEXT).map(of_verdicts);
    verdicts.chain(inconclusive.chunks(WITH_TEXT).map(of_checks)).collect()
}

/// Counters, those of backends apart, and troubles in the first message. There is always one.
#[must_use]
pub(super) fn counters(all: v1::Counters) -> Vec<Message> {
    let v1::Counters { listeners, backends, troubles } = all;
    let troubles = troubles.map(|v1::Troubles { troubles }| {
        let short = |trouble: v1::Trouble| v1::Trouble { text: cut(trouble.text), ..trouble };
        v1::Troubles { troubles: troubles.into_iter().map(short).collect() }
    });
    let mut chunks = listeners.chunks(OF_NUMBERS);
    let first = v1::Counters {
        listeners: chunks.next().unwrap_or_default().to_vec(),
        troubles,
        ..Default::default()
    };
    let further = chunks.map(|chunk| v1::Counters { listeners: chunk.to_vec(), ..Default::default() });
    let short =
        |it: v1::BackendCounters| v1::BackendCounters { ejection_reason: cut(it.ejection_reason), ..it };
    let backends: Vec<v1::BackendCounters> = backends.into_iter().map(short).collect();
    let of_backends = backends
        .chunks(OF_NUMBERS)
        .map(|chunk| v1::Counters { backends: chunk.to_vec(), ..Default::default() });
    std::iter::once(first).chain(further).chain(of_backends).map(Message::Counters).collect()
}

/// A text, as far as the plugin keeps it.
pub(super) fn cut(mut text: String) -> String {
    let fits = |at: &usize| text.is_char_boundary(*at);
    let end = (0..=TEXT_BYTES.min(text.len())).rev().find(fits).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;
    use crate::dataplane::{BackendCounters, EndReason};

    /// Limit of the plugin, in bytes.
    const MESSAGE_BYTES: usize = 1 << 20;

    fn fits(message: &Message) -> bool {
        let message = v1::NodeMessage { epoch: u64::MAX, message: Some(message.clone()) };
        message.encoded_len() <= MESSAGE_BYTES
    }

    fn verdict() -> v1::Verdict {
        let backend_id = Uuid::max().to_string();
        v1::Verdict { backend_id, up: false, reason: "é".repeat(1000), since_ms: u64::MAX }
    }

    fn inconclusive() -> v1::InconclusiveCheck {
        let v1::Verdict { backend_id, reason, since_ms, .. } = verdict();
        v1::InconclusiveCheck { backend_id, reason, since_ms }
    }

    #[test]
    fn every_message_fits_and_nothing_is_lost() {
        let error = "x".repeat(10_000);
        let result = v1::Result { kind: 3, id: Uuid::max().to_string(), generation: u64::MAX, error };
        let reason =
            |reason: &str| v1::ReasonCount { reason: reason.to_owned(), connections_total: u64::MAX };
        let durations = v1::DurationCounts { counts: vec![u64::MAX; 8], sum_us: u64::MAX };
        let drain =
            v1::Drain { parent_id: Uuid::max().to_string(), connections: u64::MAX, deadline_ms: u64::MAX };
        let of_backends = BackendCounters::default().by_reason().map(|(word, _)| reason(word)).collect();
        let counter = v1::ListenerCounters {
            listener_id: Uuid::max().to_string(),
            connections_total: u64::MAX,
            connections_active: u64::MAX,
            connections_failed_total: u64::MAX,
            bytes_in_total: u64::MAX,
            bytes_out_total: u64::MAX,
            connection_share: Some(u32::MAX),
            connections_above_share_total: u64::MAX,
            reasons: EndReason::ALL.map(|end| reason(end.as_str())).into(),
            durations: Some(durations.clone()),
            drain: Some(drain.clone()),
        };
        let of_backend = v1::BackendCounters {
            backend_id: Uuid::max().to_string(),
            connections_total: u64::MAX,
            connections_active: u64::MAX,
            connections_failed_total: u64::MAX,
            bytes_in_total: u64::MAX,
            bytes_out_total: u64::MAX,
            ejected_until_ms: u64::MAX,
            ejection_reason: "x".repeat(10_000),
            reasons: of_backends,
            durations: Some(durations),
            drain: Some(drain),
        };
        let trouble = v1::Trouble { listener_id: Uuid::max().to_string(), text: "x".repeat(TEXT_BYTES) };
        let troubles = v1::Troubles { troubles: vec![trouble; 1_000] };
        let messages = [
            acks(u64::MAX, vec![result; 10_000]),
            first_verdicts(vec![verdict(); 10_000], Vec::new()),
            verdicts(vec![verdict(); 10_000], Vec::new()),
            first_verdicts(vec![verdict(); 5_000], vec![inconclusive(); 5_000]),
            verdicts(Vec::new(), vec![inconclusive(); 10_000]),
            counters(v1::Counters {
                listeners: vec![counter; 5_000],
                backends: vec![of_backend; 5_000],
                troubles: Some(troubles),
            }),
        ];
        assert!(messages.iter().flatten().all(fits));
        let count = |messages: &[Message]| -> usize {
            let of = |message: &Message| match message {
                Message::Ack(ack) => ack.results.len(),
                Message::Verdicts(verdicts) => verdicts.verdicts.len() + verdicts.inconclusive.len(),
                Message::Counters(counters) => counters.listeners.len() + counters.backends.len(),
                _ => 0,
            };
            messages.iter().map(of).sum()
        };
        assert!(messages.iter().all(|messages| count(messages) == 10_000));
    }

    #[test]
    fn a_snapshot_is_no_larger_than_the_plugin_takes_and_has_those_that_are_down() {
        let up = v1::Verdict { up: true, reason: String::new(), ..verdict() };
        let mut all = vec![up; SNAPSHOT];
        all.extend(vec![verdict(); 3]);
        let sent: Vec<v1::Verdict> = first_verdicts(all, Vec::new())
            .into_iter()
            .flat_map(|message| match message {
                Message::Verdicts(verdicts) => verdicts.verdicts,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(sent.len(), SNAPSHOT);
        assert_eq!(sent.iter().filter(|verdict| !verdict.up).count(), 3);
    }

    #[test]
    fn a_snapshot_of_verdicts_has_one_beginning_and_one_end() {
        for length in [0, 1, WITH_TEXT, WITH_TEXT + 1, 3 * WITH_TEXT] {
            let messages = first_verdicts(vec![verdict(); length], vec![inconclusive(); 3]);
            let flags: Vec<(bool, bool)> = messages
                .iter()
                .map(|message| match message {
                    Message::Verdicts(verdicts) => (verdicts.first, verdicts.more),
                    other => panic!("{other:?}"),
                })
                .collect();
            let last = flags.len() - 1;
            for (index, flags) in flags.iter().enumerate() {
                assert_eq!(*flags, (index == 0, index < last), "{length}");
            }
        }
        assert!(verdicts(Vec::new(), Vec::new()).is_empty());
        assert_eq!(acks(7, Vec::new()).len(), 1);
        assert_eq!(counters(v1::Counters::default()), [Message::Counters(v1::Counters::default())]);
    }
}
