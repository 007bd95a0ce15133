//! PROXY protocol of one connection: the header of a trusted proxy, which states its client, and the header that a
//! backend is sent.

use std::{
    future::poll_fn,
    net::SocketAddr,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{io::ReadBuf, net::TcpStream};

use super::{relay::RelayResources, unique_id};
use crate::{
    dataplane::{
        account::HeaderRefusal,
        listen::{AllowedClients, PortOffset},
        spec::Limits,
    },
    proxy_protocol::{Endpoints, Header, HeaderProgress, MAX_V2, Subject, Version, parse, tlv_type},
};

/// Longest time for a proxy's header. The protocol asks for 3 s at least, in which a lost packet is sent again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Client of a connection, as far as it is known.
pub(super) struct Client {
    peer: SocketAddr,
    /// Header of a trusted proxy.
    stated: Option<Header>,
}

impl Client {
    /// The peer itself.
    pub(super) fn peer(peer: SocketAddr) -> Self {
        Self { peer, stated: None }
    }

    /// The client that a trusted peer states.
    pub(super) fn stated(peer: SocketAddr, header: Header) -> Self {
        Self { peer, stated: Some(header) }
    }

    /// Its address; that of the peer where the peer states none.
    pub(super) fn address(&self) -> SocketAddr {
        self.endpoints().map_or(self.peer, |endpoints| endpoints.source)
    }

    /// True if it is a trusted proxy, which states that the connection is its own, such as a health check.
    pub(super) fn is_proxy(&self) -> bool {
        self.stated.as_ref().is_some_and(|header| header.subject == Subject::Local)
    }

    /// True if these clients include it. A trusted proxy's own connections are always served.
    pub(super) fn is_admitted(&self, clients: &AllowedClients) -> bool {
        self.is_proxy() || clients.admit(self.address().ip())
    }

    /// The header for a backend. `frontends`: the listener's addresses as clients know them, of whose ports it has connected to the one
    /// at `offset`.
    pub(super) fn header(
        &self,
        version: Version,
        frontends: &[SocketAddr],
        offset: PortOffset,
        stream: &TcpStream,
    ) -> Header {
        let endpoints = self.endpoints().or_else(|| {
            let frontend = frontends.iter().find(|it| it.is_ipv4() == self.peer.is_ipv4()).copied();
            let frontend = frontend.map(|first| offset.above(first));
            let destination = frontend.or_else(|| stream.local_addr().ok())?;
            Some(Endpoints { source: self.peer, destination })
        });
        let mut header = Header::from(endpoints.map_or(Subject::Unknown, Subject::Tcp));
        if version == Version::V1 {
            return header;
        }
        let stated = self.stated.as_ref().map(|header| header.tlvs.clone());
        header.tlvs = stated.unwrap_or_default().for_next_hop();
        if header.tlvs.find(tlv_type::UNIQUE_ID).is_none() {
            let id = unique_id::next().hyphenated().to_string();
            // There is room: what is received is bounded far below.
            let _ = header.tlvs.push(tlv_type::UNIQUE_ID, id.as_bytes());
        }
        header
    }

    fn endpoints(&self) -> Option<Endpoints> {
        match self.stated.as_ref()?.subject {
            Subject::Tcp(endpoints) => Some(endpoints),
            Subject::Local | Subject::Unknown => None,
        }
    }
}

/// Receives the header that a trusted proxy begins with, and nothing of what follows it.
///
/// # Errors
/// The reason why there is none.
pub(super) async fn receive(
    stream: &TcpStream,
    limits: &Limits,
    resources: &RelayResources,
) -> Result<Header, HeaderRefusal> {
    let timeout = limits.client_data.map_or(TIMEOUT, |timeout| timeout.min(TIMEOUT));
    let mut pieces = Vec::new();
    let header = poll_fn(|cx| resources.with_buffer(|buffer| poll(cx, stream, buffer, &mut pieces)));
    tokio::time::timeout(timeout, header).await.unwrap_or(Err(HeaderRefusal::Timeout))
}

/// Reads on. `pieces`: the beginning of a header that has come in pieces. Bytes are looked at first, and taken from the
/// socket as far as they are the header's: the client's stay there.
fn poll(
    cx: &mut Context<'_>,
    stream: &TcpStream,
    buffer: &mut [u8],
    pieces: &mut Vec<u8>,
) -> Poll<Result<Header, HeaderRefusal>> {
    loop {
        let most = buffer.len().min(MAX_V2);
        let mut seen = ReadBuf::new(buffer.get_mut(..most).unwrap_or_default());
        let count = match ready!(stream.poll_peek(cx, &mut seen)) {
            Ok(0) | Err(_) => return Poll::Ready(Err(HeaderRefusal::Closed)),
            Ok(count) => count,
        };
        let had = pieces.len();
        let progress = if had == 0 {
            parse(seen.filled())
        } else {
            pieces.extend_from_slice(seen.filled());
            parse(pieces)
        };
        let (own, header) = match progress {
            Ok(HeaderProgress::Complete { header, length }) => (length.saturating_sub(had), Some(header)),
            Ok(HeaderProgress::Incomplete { .. }) => {
                if had == 0 {
                    pieces.extend_from_slice(seen.filled());
                }
                (count, None)
            }
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        if !stream.try_read(buffer.get_mut(..own).unwrap_or_default()).is_ok_and(|taken| taken == own) {
            return Poll::Ready(Err(HeaderRefusal::Closed));
        }
        if let Some(header) = header {
            return Poll::Ready(Ok(header));
        }
    }
}
