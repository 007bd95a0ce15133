//! Counters of the listeners whose connections are a share of a limit: sent more often than others, since shares are dealt
//! by them. Pure.

use std::collections::HashMap;

use fiberlb_proto::agent::v1;

/// Use of one listener's share: the share in force, its connections, and clients above it.
type ShareUse = (Option<u32>, u64, u64);

/// Listeners with a share, as they were sent last.
#[derive(Debug, Default)]
pub(super) struct SentShares(HashMap<String, ShareUse>);

impl SentShares {
    /// True if there is any.
    pub(super) fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Records that all counters are sent.
    pub(super) fn record(&mut self, all: &v1::Counters) {
        let shared = all.listeners.iter().filter(|it| it.connection_share.is_some());
        self.0 = shared.map(|it| (it.listener_id.clone(), of(it))).collect();
    }

    /// Takes, of the counters of all listeners with a share, those that have changed since they were sent, as sent; None:
    /// there are none.
    pub(super) fn take_news(&mut self, shared: Vec<v1::ListenerCounters>) -> Option<v1::Counters> {
        let all = v1::Counters { listeners: shared, ..v1::Counters::default() };
        let sent = std::mem::take(&mut self.0);
        self.record(&all);
        let is_news = |it: &v1::ListenerCounters| sent.get(&it.listener_id) != Some(&of(it));
        let listeners: Vec<_> = all.listeners.into_iter().filter(is_news).collect();
        (!listeners.is_empty()).then(|| v1::Counters { listeners, ..v1::Counters::default() })
    }
}

fn of(counters: &v1::ListenerCounters) -> ShareUse {
    (counters.connection_share, counters.connections_active, counters.connections_above_share_total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_what_shares_are_dealt_by_is_news_once_and_traffic_is_not() {
        let of = |share, active, bytes| v1::ListenerCounters {
            listener_id: format!("{share:?}"),
            connection_share: share,
            connections_active: active,
            bytes_in_total: bytes,
            ..Default::default()
        };
        let all = |listeners: &[v1::ListenerCounters]| v1::Counters {
            listeners: listeners.to_vec(),
            troubles: Some(v1::Troubles::default()),
            ..Default::default()
        };
        let mut sent = SentShares::default();
        sent.record(&all(&[of(None, 1, 1)]));
        assert!(!sent.is_any());
        sent.record(&all(&[of(None, 1, 1), of(Some(0), 0, 0), of(Some(2), 1, 1)]));
        assert!(sent.is_any());
        assert_eq!(sent.take_news(vec![of(Some(0), 0, 0), of(Some(2), 1, 9)]), None);
        let news = sent.take_news(vec![of(Some(0), 0, 0), of(Some(2), 2, 9)]).unwrap();
        assert_eq!(news, v1::Counters { listeners: vec![of(Some(2), 2, 9)], ..Default::default() });
        assert_eq!(sent.take_news(vec![of(Some(2), 2, 10)]), None);
    }
}
