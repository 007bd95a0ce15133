//! Deadlines of drains, in words.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// Fate of the connections that are left at `now`: "reset in 40 s", or "until they end".
pub(crate) fn reset(deadline: Option<&Timestamp>, now: SystemTime) -> String {
    let Some(deadline) = deadline.and_then(|deadline| SystemTime::try_from(*deadline).ok()) else {
        return "until they end".to_owned();
    };
    // The clock of the node, or of the plugin, is another one than this.
    let left = deadline.duration_since(now).unwrap_or(Duration::ZERO);
    format!("reset in {} s", left.as_secs_f64().ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_told_in_whole_seconds_from_now() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_500);
        let at = |seconds| reset(Some(&Timestamp { seconds, nanos: 0 }), now);
        assert_eq!([at(1_040), at(1_000), at(0)], ["reset in 40 s", "reset in 0 s", "reset in 0 s"]);
        assert_eq!(reset(None, now), "until they end");
    }
}
