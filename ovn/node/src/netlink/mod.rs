//! Links, addresses and routes of a network namespace, by rtnetlink(7); transmit offloads, and announcements of addresses.
//!
//! A [`Netlink`] belongs to one namespace and can be used from any other. Its functions have one verb each: adding an object that
//! exists is [`NetlinkError::Exists`], changing or removing one that does not is [`NetlinkError::Missing`]. Knows neither OVN nor
//! OVSDB.

mod address;
mod announce;
mod error;
mod frame;
mod link;
mod offload;
mod route;
mod value;

use std::io;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;

use crate::netns::Netns;

pub use address::SourceSelection;
pub use error::NetlinkError;
pub use frame::{arp_announcement, neighbor_advertisement};
pub use link::{Link, VethEnd};
pub use route::{NextHop, Route};
pub use value::{IfName, LinkIndex, Mac};

/// Timeout of a reply. The kernel replies within microseconds; a reply that was lost never arrives.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// `NLM_F_DUMP_INTR` of linux/netlink.h: the list changed during the dump.
const INTERRUPTED: u16 = 0x10;
/// Attempts to dump a list that changes meanwhile.
const DUMP_ATTEMPTS: usize = 10;

/// A netlink socket in a network namespace. Clones share it; it is closed with the last one, and keeps its namespace alive
/// until then.
#[derive(Clone, Debug)]
pub struct Netlink {
    netns: Netns,
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in a namespace, served by a task on the current tokio runtime (with IO enabled).
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] if the namespace cannot be entered or the socket cannot be opened.
    pub fn open(netns: &Netns) -> Result<Self, NetlinkError> {
        let made = netns.run(rtnetlink::new_connection).flatten();
        // There are no subscriptions, so unsolicited messages can be dropped.
        let (mut connection, handle, _) = made.map_err(NetlinkError::of("open a netlink socket"))?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        tokio::spawn(connection);
        Ok(Self { netns: netns.clone(), handle })
    }

    /// Namespace of the socket.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Sends a request for a change. `what` describes it in errors.
    async fn command(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(), NetlinkError> {
        self.request(what, message, NLM_F_REQUEST | NLM_F_ACK | flags).await.map(drop)
    }

    /// Requests a dump of a list.
    async fn list(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let reply = self.request(what, message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await?;
            if !reply.interrupted {
                return Ok(reply.messages);
            }
        }
        Err(NetlinkError::of(what)(io::Error::other(format!(
            "it changed during each of {DUMP_ATTEMPTS} attempts"
        ))))
    }

    async fn request(
        &self,
        what: &str,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Reply, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let closed = || NetlinkError::of(what)(io::Error::other("the netlink socket is closed"));
        let reply = self.handle.clone().request(request).map_err(|_| closed())?;
        let collected = tokio::time::timeout(REPLY_TIMEOUT, collect(reply)).await;
        let collected = collected.map_err(|_| NetlinkError::of(what)(io::ErrorKind::TimedOut.into()))?;
        collected.map_err(NetlinkError::of(what))
    }
}

#[derive(Default)]
struct Reply {
    messages: Vec<RouteNetlinkMessage>,
    interrupted: bool,
}

/// Collects messages up to the end of the reply. A socket that is closed before is an error.
async fn collect(reply: impl Stream<Item = NetlinkMessage<RouteNetlinkMessage>>) -> Result<Reply, io::Error> {
    let mut reply = std::pin::pin!(reply);
    let mut collected = Reply::default();
    while let Some(message) = reply.next().await {
        collected.interrupted |= message.header.flags & INTERRUPTED != 0;
        match message.payload {
            NetlinkPayload::InnerMessage(message) => collected.messages.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            NetlinkPayload::Done(done) if done.code != 0 => {
                return Err(io::Error::from_raw_os_error(done.code.saturating_abs()));
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(collected),
            NetlinkPayload::Overrun(_) => return Err(io::Error::other("a part of the reply was lost")),
            _ => {}
        }
    }
    Err(io::Error::other("the netlink socket was closed before the end of the reply"))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use rtnetlink::packet_core::{DoneMessage, ErrorMessage, NetlinkHeader};
    use rtnetlink::packet_route::link::LinkMessage;

    use super::*;

    fn message(payload: NetlinkPayload<RouteNetlinkMessage>) -> NetlinkMessage<RouteNetlinkMessage> {
        NetlinkMessage::new(NetlinkHeader::default(), payload)
    }

    fn inner() -> NetlinkMessage<RouteNetlinkMessage> {
        message(NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(LinkMessage::default())))
    }

    #[tokio::test]
    async fn a_reply_without_its_end_is_an_error() {
        assert!(collect(stream::iter([])).await.is_err());
        assert!(collect(stream::iter([inner()])).await.is_err());
        let ended = [inner(), message(NetlinkPayload::Done(DoneMessage::default()))];
        assert_eq!(collect(stream::iter(ended)).await.unwrap().messages.len(), 1);
        let acknowledged = message(NetlinkPayload::Error(ErrorMessage::default()));
        assert!(collect(stream::iter([acknowledged])).await.unwrap().messages.is_empty());
    }

    #[tokio::test]
    async fn an_interrupted_list_is_noticed() {
        let mut torn = inner();
        torn.header.flags = INTERRUPTED;
        let end = message(NetlinkPayload::Done(DoneMessage::default()));
        assert!(collect(stream::iter([torn, end])).await.unwrap().interrupted);
    }
}
