//! Redirects of followers to the leader: which of them are followed. Pure.

use tonic::{Code, Status};

use super::endpoint::PluginEndpoint;

/// Metadata key of the leader's address in a follower's status.
const LEADER: &str = "fiberlb-leader";
/// Most redirects in a row: leadership may move while the node is on its way.
const MOST_IN_A_ROW: usize = 3;
/// Longest address, in bytes: a name has 253, a unix path 107.
const MOST_BYTES: usize = 300;

/// Reason why a redirect is not followed. The node goes on with its own list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RedirectError {
    /// No address.
    #[error("its redirect is to no address")]
    Malformed,
    /// A plugin on another machine means a path on that machine.
    #[error("its redirect is to {0}, a path on another machine")]
    Path(PluginEndpoint),
    /// The node has no certificate for it.
    #[error("its redirect is to {0}, which needs TLS, and this node has no TLS files")]
    NoTls(PluginEndpoint),
    /// This chain of redirects has dialled it already.
    #[error("its redirect is to {0}, which redirected here: the plugins disagree on the leader")]
    Loop(PluginEndpoint),
    /// It has just refused the node.
    #[error("its redirect is to {0}, which has just failed")]
    Failed(PluginEndpoint),
    /// The limit.
    #[error("more than {MOST_IN_A_ROW} redirects in a row")]
    TooMany,
}

/// Redirects since the last good stream or pause.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// Endpoints dialled since the last one of the node's own list, that one first.
    chain: Vec<PluginEndpoint>,
    /// Targets of redirects that failed in this round.
    failed: Vec<PluginEndpoint>,
}

impl Redirects {
    /// Starts a chain with an endpoint of the node's own list.
    pub(super) fn begin(&mut self, endpoint: &PluginEndpoint) {
        self.chain = vec![endpoint.clone()];
    }

    /// Number of redirects that led to the endpoint that is dialled now.
    pub(super) fn in_a_row(&self) -> usize {
        self.chain.len().saturating_sub(1)
    }

    /// Endpoint to dial at once after a stream ended with `status`; `None`: the next of the node's own list.
    /// `has_tls`: the node has TLS files.
    pub(super) fn after(
        &mut self,
        status: Option<&Status>,
        has_tls: bool,
    ) -> Option<Result<PluginEndpoint, RedirectError>> {
        match status.and_then(target) {
            Some(target) => Some(self.follow(target, has_tls)),
            None => {
                // The target of the redirect is no leader, or not there.
                if self.in_a_row() > 0 {
                    self.failed.extend(self.chain.pop());
                }
                None
            }
        }
    }

    fn follow(
        &mut self,
        target: Result<PluginEndpoint, RedirectError>,
        has_tls: bool,
    ) -> Result<PluginEndpoint, RedirectError> {
        let target = target?;
        let is_unix = |endpoint: &PluginEndpoint| matches!(endpoint, PluginEndpoint::Unix(_));
        match self.chain.last() {
            Some(from) if is_unix(&target) && !is_unix(from) => return Err(RedirectError::Path(target)),
            _ if !is_unix(&target) && !has_tls => return Err(RedirectError::NoTls(target)),
            _ if self.chain.contains(&target) => return Err(RedirectError::Loop(target)),
            _ if self.failed.contains(&target) => return Err(RedirectError::Failed(target)),
            _ if self.in_a_row() >= MOST_IN_A_ROW => return Err(RedirectError::TooMany),
            _ => {}
        }
        self.chain.push(target.clone());
        Ok(target)
    }

    /// Clears failures, after a good stream or a pause: a plugin that failed or redirected before may be the
    /// leader now.
    pub(super) fn forget(&mut self) {
        self.failed.clear();
        self.chain.drain(..self.chain.len().saturating_sub(1));
    }
}

/// Target of the redirect in a status; `None`: it is no redirect.
fn target(status: &Status) -> Option<Result<PluginEndpoint, RedirectError>> {
    if status.code() != Code::Unavailable {
        return None;
    }
    let value = status.metadata().get(LEADER)?;
    let text = value.to_str().ok().filter(|text| text.len() <= MOST_BYTES);
    Some(text.and_then(|text| text.parse().ok()).ok_or(RedirectError::Malformed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(address: &str) -> Status {
        let mut status = Status::unavailable("a follower");
        status.metadata_mut().insert(LEADER, address.parse().unwrap());
        status
    }

    fn endpoint(text: &str) -> PluginEndpoint {
        text.parse().unwrap()
    }

    const A: &str = "https://a:1";
    const B: &str = "https://b:1";
    const C: &str = "https://c:1";

    /// Redirects of a node that has dialled `own`.
    fn begun(own: &str) -> Redirects {
        let mut redirects = Redirects::default();
        redirects.begin(&endpoint(own));
        redirects
    }

    #[test]
    fn the_leader_is_dialled_at_once() {
        let mut redirects = begun(A);
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Ok(endpoint(B))));
        assert_eq!(redirects.in_a_row(), 1);
        assert_eq!(redirects.after(Some(&to(C)), true), Some(Ok(endpoint(C))), "leadership moved meanwhile");
    }

    #[test]
    fn other_statuses_are_no_redirects() {
        let mut redirects = begun(A);
        assert_eq!(redirects.after(None, true), None);
        assert_eq!(redirects.after(Some(&Status::unavailable("no plugin leads")), true), None);
        let mut denied = to(B);
        denied = Status::with_metadata(Code::PermissionDenied, "no", denied.metadata().clone());
        assert_eq!(redirects.after(Some(&denied), true), None);
    }

    #[test]
    fn what_is_no_address_is_not_followed() {
        let long = format!("https://{}:1", "a".repeat(400));
        for text in ["", "b:1", "http://b:1", "https://b", "https://b:1/x", "https://u@b:1", "unix:", &long] {
            let mut redirects = begun(A);
            let ignored = redirects.after(Some(&to(text)), true);
            assert_eq!(ignored, Some(Err(RedirectError::Malformed)), "{text}");
        }
        let mut status = Status::unavailable("a follower");
        let opaque = tonic::metadata::MetadataValue::try_from(&b"unix:/\xff"[..]).unwrap();
        status.metadata_mut().insert(LEADER, opaque);
        assert_eq!(begun(A).after(Some(&status), true), Some(Err(RedirectError::Malformed)));
    }

    #[test]
    fn a_path_is_followed_on_the_same_machine_only() {
        let path = "unix:/run/other.sock";
        assert_eq!(begun("unix:/run/a.sock").after(Some(&to(path)), false), Some(Ok(endpoint(path))));
        assert_eq!(begun(A).after(Some(&to(path)), true), Some(Err(RedirectError::Path(endpoint(path)))));
    }

    #[test]
    fn a_node_without_certificates_stays_where_none_is_needed() {
        let ignored = begun("unix:/run/a.sock").after(Some(&to(B)), false);
        assert_eq!(ignored, Some(Err(RedirectError::NoTls(endpoint(B)))));
        assert_eq!(begun("unix:/run/a.sock").after(Some(&to(B)), true), Some(Ok(endpoint(B))));
    }

    #[test]
    fn plugins_that_name_themselves_or_one_another_are_left() {
        assert_eq!(begun(A).after(Some(&to(A)), true), Some(Err(RedirectError::Loop(endpoint(A)))));
        let mut redirects = begun(A);
        redirects.after(Some(&to(B)), true);
        assert_eq!(redirects.after(Some(&to(A)), true), Some(Err(RedirectError::Loop(endpoint(A)))));
    }

    #[test]
    fn a_row_of_redirects_has_an_end() {
        let mut redirects = begun(A);
        for at in 0..MOST_IN_A_ROW {
            assert!(matches!(redirects.after(Some(&to(&format!("https://x{at}:1"))), true), Some(Ok(_))));
        }
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Err(RedirectError::TooMany)));
        redirects.begin(&endpoint(C));
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Ok(endpoint(B))), "the next one of the list");
    }

    #[test]
    fn a_leader_that_does_not_answer_is_dialled_once_in_a_round() {
        let mut redirects = begun(A);
        redirects.after(Some(&to(B)), true);
        assert_eq!(redirects.after(None, true), None);
        redirects.begin(&endpoint(C));
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Err(RedirectError::Failed(endpoint(B)))));
        redirects.forget();
        redirects.begin(&endpoint(A));
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Ok(endpoint(B))));
    }

    #[test]
    fn after_a_good_stream_the_lead_may_go_back() {
        let mut redirects = begun(A);
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Ok(endpoint(B))));
        redirects.forget();
        assert_eq!(redirects.after(Some(&to(A)), true), Some(Ok(endpoint(A))));
        assert_eq!(redirects.after(Some(&to(B)), true), Some(Err(RedirectError::Loop(endpoint(B)))));
    }

    #[test]
    fn one_of_the_own_list_that_failed_may_still_be_the_leader_by_now() {
        let mut redirects = begun(A);
        assert_eq!(redirects.after(Some(&Status::unavailable("no plugin leads")), true), None);
        redirects.begin(&endpoint(B));
        assert_eq!(redirects.after(Some(&to(A)), true), Some(Ok(endpoint(A))));
    }
}
