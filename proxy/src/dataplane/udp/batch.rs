//! System calls that move many datagrams, and their buffers.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsFd, AsRawFd},
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrIn, SockaddrIn6,
    SockaddrLike, SockaddrStorage, recvmmsg, sendmsg,
};
use rustix::{
    io::Errno,
    net::{MMsgHdr, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, addr::SocketAddrArg as _},
};

use super::admission::Applicant;

/// Most datagrams of one system call.
pub(super) const BATCH: usize = 64;

/// Datagrams that a system call has room for where few are expected: preparing for a whole batch touches more memory than
/// one datagram does on all of its way.
const FEW: usize = 8;

/// Bytes of a slot for one datagram. The largest is 65,507 by IPv4 and 65,527 by IPv6: none is cut.
const SLOT: usize = 64 * 1024;

/// Bytes between the beginnings of two slots. Not a power of two, or all beginnings would compete for the same lines of
/// the processor's caches.
const STRIDE: usize = SLOT + 128;

/// Buffers for a batch. Pages that no datagram has reached take no memory.
#[derive(Debug)]
struct Slots(Box<[u8]>);

impl Default for Slots {
    fn default() -> Self {
        Self(vec![0; BATCH * STRIDE].into())
    }
}

impl Slots {
    fn datagram(&self, slot: usize, length: usize) -> &[u8] {
        let start = slot * STRIDE;
        self.0.get(start..start + length).unwrap_or_default()
    }

    /// So many slots from this one on, each as the one buffer of a message; empty ones where there is none left.
    fn free<const N: usize>(&mut self, from: usize) -> [[IoSliceMut<'_>; 1]; N] {
        let free = self.0.get_mut(from * STRIDE..).unwrap_or_default();
        let mut slots = free.chunks_exact_mut(STRIDE);
        std::array::from_fn(|_| {
            let slot = slots.next().and_then(|slot| slot.get_mut(..SLOT));
            [IoSliceMut::new(slot.unwrap_or_default())]
        })
    }
}

/// A received datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) client: SocketAddr,
    /// Its bytes: where they are, and how many. One without a sender leaves its slot unused.
    slot: usize,
    length: usize,
    /// Hops that it had left: TTL or hop limit. 0: it is not known.
    hops: u8,
}

impl Received {
    /// Its sender, as one who asks for a session.
    pub(super) fn applicant(&self) -> Applicant {
        Applicant { client: self.client, hops: self.hops }
    }
}

/// Buffers for the datagrams of clients.
#[derive(Debug)]
pub(super) struct Inbox {
    slots: Slots,
    // The kernel leaves the length of an address in a header, and takes it for the room there is: one kind for each
    // family. So it does with control messages, of which each datagram has the same one.
    v4: MultiHeaders<SockaddrIn>,
    v6: MultiHeaders<SockaddrIn6>,
    received: Vec<Received>,
    /// The last datagrams were more than [`FEW`], or as many.
    expects_many: bool,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            v4: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(i32))),
            v6: MultiHeaders::preallocate(BATCH, Some(nix::cmsg_space!(i32))),
            received: Vec::with_capacity(BATCH),
            expects_many: false,
        }
    }
}

impl Inbox {
    /// Receives datagrams, instead of those that were there. `is_v4`: the socket's family. True if there may be more.
    ///
    /// # Errors
    /// The kernel's; there is no datagram then.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd, is_v4: bool) -> io::Result<bool> {
        let is_full = if self.expects_many {
            self.fill::<BATCH>(socket, is_v4)
        } else {
            self.fill::<FEW>(socket, is_v4)
        };
        self.expects_many = self.received.len() >= FEW;
        is_full
    }

    /// Receives at most `N` datagrams; true if they are as many.
    fn fill<const N: usize>(&mut self, socket: &impl AsRawFd, is_v4: bool) -> io::Result<bool> {
        let Self { slots, v4, v6, received, .. } = self;
        received.clear();
        if is_v4 {
            let client = |address: &SockaddrIn| Some(SocketAddrV4::from(*address).into());
            receive::<N, _>(socket, v4, slots, received, client)
        } else {
            let client = |address: &SockaddrIn6| Some(SocketAddrV6::from(*address).into());
            receive::<N, _>(socket, v6, slots, received, client)
        }
    }

    /// The datagrams.
    pub(super) fn received(&self) -> &[Received] {
        &self.received
    }

    /// Bytes of the datagram at a place.
    pub(super) fn datagram(&self, place: usize) -> &[u8] {
        self.received.get(place).map_or(&[], |received| self.slots.datagram(received.slot, received.length))
    }
}

fn receive<const N: usize, S: SockaddrLike + Copy>(
    socket: &impl AsRawFd,
    headers: &mut MultiHeaders<S>,
    slots: &mut Slots,
    received: &mut Vec<Received>,
    mut client: impl FnMut(&S) -> Option<SocketAddr>,
) -> io::Result<bool> {
    let mut buffers = slots.free::<N>(0);
    let messages = recvmmsg(socket.as_raw_fd(), headers, &mut buffers, MsgFlags::MSG_DONTWAIT, None)?;
    let mut number = 0;
    received.extend(messages.enumerate().filter_map(|(slot, message)| {
        number = slot + 1;
        let client = client(message.address.as_ref()?)?;
        Some(Received { client, slot, length: message.bytes, hops: hops(&message) })
    }));
    Ok(number == N)
}

/// Hops that a datagram had left.
fn hops<S>(message: &RecvMsg<'_, '_, S>) -> u8 {
    let hops = message.cmsgs().ok().and_then(|mut controls| {
        controls.find_map(|control| match control {
            ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
            _ => None,
        })
    });
    hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0)
}

/// Buffers for the answers of backends, until they are sent.
#[derive(Debug)]
pub(super) struct Outbox {
    slots: Slots,
    headers: MultiHeaders<()>,
    lengths: Vec<usize>,
}

impl Default for Outbox {
    fn default() -> Self {
        Self {
            slots: Slots::default(),
            headers: MultiHeaders::preallocate(BURST, None),
            lengths: Vec::with_capacity(BATCH),
        }
    }
}

/// Most answers that are taken from one session before others have their turn.
pub(super) const BURST: usize = 8;

impl Outbox {
    /// Receives answers behind those that are there, from a connected socket. Returns their number, and true if there
    /// may be more.
    ///
    /// # Errors
    /// The kernel's, which may be the backend's refusal; there is no datagram then.
    pub(super) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<(usize, bool)> {
        let before = self.lengths.len();
        let most = BURST.min(BATCH - before);
        let mut buffers = self.slots.free::<BURST>(before);
        let buffers = buffers.iter_mut().take(most);
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(socket.as_raw_fd(), &mut self.headers, buffers, flags, None)?;
        self.lengths.extend(messages.map(|message| message.bytes));
        let number = self.lengths.len() - before;
        Ok((number, number == most))
    }

    /// Number of answers.
    pub(super) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Bytes of the answer at a place.
    pub(super) fn datagram(&self, place: usize) -> &[u8] {
        self.slots.datagram(place, self.lengths.get(place).copied().unwrap_or(0))
    }

    /// Drops all answers.
    pub(super) fn clear(&mut self) {
        self.lengths.clear();
    }
}

/// Result of sending datagrams in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Number of those that were sent: the first ones.
    pub(super) number: usize,
    /// Error of the one behind them.
    pub(super) error: Option<Errno>,
}

/// Most bytes of a train: what a datagram of either family may have.
const MOST_TRAIN_BYTES: usize = 65_507;

/// Most datagrams of a train, for all kernels.
const MOST_TRAIN: usize = 64;

/// Number of the first ones of these datagrams, given by their peers and sizes, that can go as a train: one message to the kernel,
/// which it takes apart as late as it can (UDP_SEGMENT). All are to one peer and of equal size, but that the last may be shorter.
fn train<P: PartialEq>(mut datagrams: impl Iterator<Item = (P, usize)>) -> usize {
    let Some((peer, size)) = datagrams.next() else { return 0 };
    let (mut number, mut bytes) = (1, size);
    for (other, length) in datagrams {
        bytes += length;
        let fits = other == peer && length > 0 && length <= size && bytes <= MOST_TRAIN_BYTES;
        if !fits || number == MOST_TRAIN {
            break;
        }
        number += 1;
        if length < size {
            break;
        }
    }
    number
}

/// Sends all datagrams in turn: trains by `as_train`, and what is between by `one_by_one`. Trains that the kernel does not take go
/// one by one, too. `of`: peer and size.
fn send_all<T, P: PartialEq>(
    datagrams: &[T],
    of: impl Fn(&T) -> (P, usize),
    as_train: impl Fn(&[T]) -> Result<(), Errno>,
    one_by_one: impl Fn(&[T]) -> Sent,
) -> Sent {
    let (mut next, mut may_be_trains) = (0, true);
    while next < datagrams.len() {
        let train_at = |at: usize| train(datagrams.iter().skip(at).map(&of));
        let length = if may_be_trains { train_at(next) } else { 1 };
        if length > 1 {
            match as_train(datagrams.get(next..next + length).unwrap_or_default()) {
                Ok(()) => next += length,
                // The datagrams are larger than the path allows, the way has no checksums, or the kernel knows no trains.
                Err(Errno::INVAL | Errno::MSGSIZE | Errno::IO | Errno::OPNOTSUPP | Errno::NOPROTOOPT) => {
                    may_be_trains = false;
                }
                Err(error) => return Sent { number: next, error: Some(error) },
            }
            continue;
        }
        let is_end = |at: &usize| may_be_trains && train_at(*at) > 1;
        let end = (next + 1..datagrams.len()).find(is_end).unwrap_or(datagrams.len());
        let Sent { number, error } = one_by_one(datagrams.get(next..end).unwrap_or_default());
        next += number;
        if error.is_some() || next < end {
            return Sent { number: next, error };
        }
    }
    Sent { number: next, error: None }
}

/// Sends a train, by a connected socket if `peer` is none.
fn send_train<'a>(
    socket: &impl AsFd,
    peer: Option<SocketAddr>,
    datagrams: impl Iterator<Item = &'a [u8]>,
) -> Result<(), Errno> {
    let buffers: Vec<IoSlice<'_>> = datagrams.map(IoSlice::new).collect();
    let size = u16::try_from(buffers.first().map_or(0, |first| first.len())).map_err(|_| Errno::INVAL)?;
    let (descriptor, controls) = (socket.as_fd().as_raw_fd(), [ControlMessage::UdpGsoSegments(&size)]);
    let peer = peer.map(SockaddrStorage::from);
    let sent = sendmsg(descriptor, &buffers, &controls, MsgFlags::MSG_DONTWAIT, peer.as_ref());
    sent.map(drop).map_err(|error| Errno::from_raw_os_error(error as i32))
}

/// Sends datagrams by a connected socket.
pub(super) fn send(socket: impl AsFd, datagrams: &[&[u8]]) -> Sent {
    let as_train = |train: &[&[u8]]| send_train(&socket, None, train.iter().copied());
    send_all(datagrams, |datagram| ((), datagram.len()), as_train, |rest| send_each(&socket, rest))
}

fn send_each(socket: impl AsFd, datagrams: &[&[u8]]) -> Sent {
    if let [datagram] = datagrams {
        return single(rustix::net::send(socket, datagram, SendFlags::DONTWAIT));
    }
    let buffers: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|bytes| [IoSlice::new(bytes)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let headers = buffers.iter().zip(&mut controls).map(|(buffer, control)| MMsgHdr::new(buffer, control));
    many(socket, &mut headers.collect::<Vec<_>>())
}

/// Sends each datagram to an address.
pub(super) fn send_to(socket: impl AsFd, datagrams: &[(SocketAddr, &[u8])]) -> Sent {
    let as_train = |train: &[(SocketAddr, &[u8])]| {
        let peer = train.first().map(|(peer, _)| *peer);
        send_train(&socket, peer, train.iter().map(|(_, datagram)| *datagram))
    };
    let of = |(peer, datagram): &(SocketAddr, &[u8])| (*peer, datagram.len());
    send_all(datagrams, of, as_train, |rest| send_each_to(&socket, rest))
}

fn send_each_to(socket: impl AsFd, datagrams: &[(SocketAddr, &[u8])]) -> Sent {
    if let [(address, datagram)] = datagrams {
        return single(rustix::net::sendto(socket, datagram, SendFlags::DONTWAIT, address));
    }
    let addresses: Vec<SocketAddrAny> = datagrams.iter().map(|(address, _)| address.as_any()).collect();
    let buffers: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|(_, bytes)| [IoSlice::new(bytes)]).collect();
    let mut controls: Vec<SendAncillaryBuffer<'_, '_, '_>> =
        datagrams.iter().map(|_| SendAncillaryBuffer::default()).collect();
    let messages = addresses.iter().zip(&buffers).zip(&mut controls);
    let headers =
        messages.map(|((address, buffer), control)| MMsgHdr::new_with_addr(address, buffer, control));
    many(socket, &mut headers.collect::<Vec<_>>())
}

fn single(sent: rustix::io::Result<usize>) -> Sent {
    match sent {
        Ok(_) => Sent { number: 1, error: None },
        Err(error) => Sent { number: 0, error: Some(error) },
    }
}

/// Sends until all are sent, or one cannot be: the kernel tells of an error only if it is that of the first one.
fn many(socket: impl AsFd, headers: &mut [MMsgHdr<'_>]) -> Sent {
    let mut number = 0;
    while let Some(rest) = headers.get_mut(number..).filter(|rest| !rest.is_empty()) {
        match rustix::net::sendmmsg(&socket, rest, SendFlags::DONTWAIT) {
            Ok(0) => break,
            Ok(sent) => number += sent,
            Err(error) => return Sent { number, error: Some(error) },
        }
    }
    Sent { number, error: None }
}

/// Most datagrams that are dropped from a new socket: more than its receive buffer holds.
const MAX_DRAINED: usize = 4_096;

/// Drops the datagrams that wait at a socket.
pub(super) fn drain(socket: impl AsFd) {
    let none: &mut [u8] = &mut [];
    for _ in 0..MAX_DRAINED {
        // An error that is taken here is that of nothing which was sent.
        if rustix::net::recv(&socket, &mut *none, RecvFlags::DONTWAIT).is_err() {
            return;
        }
    }
}

/// Takes what a socket has in its queue of errors, which counts towards the buffer for its answers until then: some
/// hundred errors would leave no room for large ones.
pub(super) fn drain_errors(socket: &impl AsRawFd) {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    for _ in 0..BATCH {
        if nix::sys::socket::recv(socket.as_raw_fd(), &mut [0; 1], flags).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{
        setsockopt,
        sockopt::{Ipv4RecvTtl, Ipv4Ttl, Ipv6RecvHopLimit, Ipv6Ttl},
    };

    use super::*;

    fn pair(address: &str) -> (UdpSocket, UdpSocket) {
        let [one, other] = [(); 2].map(|()| UdpSocket::bind((address, 0)).unwrap());
        one.connect(other.local_addr().unwrap()).unwrap();
        (one, other)
    }

    #[test]
    fn datagrams_of_both_families_come_with_their_sender_whole_and_in_order() {
        let mut inbox = Inbox::default();
        for (address, is_v4, largest, hops) in
            [("127.0.0.1", true, 65_507, 64), ("::1", false, 65_527, 7), ("127.0.0.1", true, 1, 255)]
        {
            let (client, server) = pair(address);
            let large = vec![7; largest];
            if is_v4 {
                setsockopt(&server, Ipv4RecvTtl, &true).unwrap();
                setsockopt(&client, Ipv4Ttl, &i32::from(hops)).unwrap();
            } else {
                setsockopt(&server, Ipv6RecvHopLimit, &true).unwrap();
                setsockopt(&client, Ipv6Ttl, &i32::from(hops)).unwrap();
            }
            let sent = send(&client, &[b"one", b"", &large]);
            assert_eq!(sent, Sent { number: 3, error: None });
            inbox.receive(&server, is_v4).unwrap();
            assert_eq!(inbox.received().len(), 3);
            assert!(inbox.received().iter().all(|it| it.applicant().hops == hops), "{:?}", inbox.received());
            assert!(inbox.received().iter().all(|it| it.client == client.local_addr().unwrap()));
            assert_eq!([0, 1, 2].map(|place| inbox.datagram(place)), [b"one", &b""[..], &large]);
            assert!(inbox.receive(&server, is_v4).is_err() && inbox.received().is_empty());
        }
    }

    #[test]
    fn many_datagrams_are_received_after_few_and_few_after_many() {
        let mut inbox = Inbox::default();
        let (client, server) = pair("127.0.0.1");
        let mut receive = |sent: usize| {
            assert_eq!(send(&client, &vec![&b"hello"[..]; sent]).number, sent);
            let mut batches = Vec::new();
            while let Ok(may_have_more) = inbox.receive(&server, true) {
                batches.push((inbox.received().len(), may_have_more));
            }
            batches
        };
        assert_eq!(receive(1), [(1, false)]);
        assert_eq!(receive(FEW + BATCH + 2), [(FEW, true), (BATCH, true), (2, false)]);
        assert_eq!(receive(FEW + 1), [(FEW, true), (1, false)]);
        assert_eq!(receive(FEW - 1), [(FEW - 1, false)]);
    }

    #[test]
    fn a_datagram_without_a_sender_does_not_shift_the_others() {
        let mut inbox = Inbox::default();
        let (client, server) = pair("127.0.0.1");
        assert_eq!(send(&client, &[b"one", b"two"]).number, 2);
        let mut seen = 0;
        let Inbox { slots, v4, received, .. } = &mut inbox;
        receive::<BATCH, _>(&server, v4, slots, received, |address: &SockaddrIn| {
            seen += 1;
            (seen > 1).then(|| SocketAddrV4::from(*address).into())
        })
        .unwrap();
        assert_eq!(inbox.received().len(), 1);
        assert_eq!(inbox.datagram(0), b"two");
    }

    #[test]
    fn a_train_is_to_one_peer_and_of_one_size_but_its_end() {
        let train = |sizes: &[usize]| train(sizes.iter().map(|size| ((), *size)));
        assert_eq!([train(&[]), train(&[5]), train(&[5, 5, 5]), train(&[5, 5, 3, 3])], [0, 1, 3, 3]);
        assert_eq!([train(&[5, 6]), train(&[0, 0]), train(&[5, 0])], [1, 1, 1]);
        assert_eq!(
            [train(&[1; 100]), train(&[40_000; 2]), train(&[1_000; 100])],
            [MOST_TRAIN, 1, MOST_TRAIN]
        );
        assert_eq!(train(&[9_000; 20]), 7);
        assert_eq!(super::train([(1, 5), (1, 5), (2, 5)].into_iter()), 2);
    }

    #[test]
    fn datagrams_that_go_as_trains_come_as_they_are() {
        let mut inbox = Inbox::default();
        for (address, is_v4) in [("127.0.0.1", true), ("::1", false)] {
            let (client, server) = pair(address);
            let other = UdpSocket::bind((address, 0)).unwrap();
            let sizes = [1_200, 1_200, 1_200, 700, 0, 700, 700, 9, 1_200, 1_200];
            let datagrams: Vec<Vec<u8>> =
                sizes.iter().enumerate().map(|(number, size)| vec![number as u8; *size]).collect();
            let slices: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
            assert_eq!(send(&client, &slices), Sent { number: sizes.len(), error: None });
            let mut received: Vec<Vec<u8>> = Vec::new();
            while inbox.receive(&server, is_v4).is_ok() {
                received.extend((0..inbox.received().len()).map(|place| inbox.datagram(place).to_vec()));
            }
            assert_eq!(received, datagrams);
            // And back, to two peers in turn.
            let peers = [&client, &client, &other, &other, &client];
            let peers = peers.map(|peer| peer.local_addr().unwrap());
            let answers: Vec<(SocketAddr, &[u8])> = peers.into_iter().zip(slices.iter().copied()).collect();
            assert_eq!(send_to(&server, &answers).number, 5);
            for (peer, wanted) in [(&client, [0, 1, 4].as_slice()), (&other, &[2, 3])] {
                peer.set_nonblocking(true).unwrap();
                let mut buffer = [0; 2048];
                for number in wanted {
                    let length = peer.recv(&mut buffer).unwrap();
                    assert_eq!(buffer[..length], datagrams[*number]);
                }
                assert!(peer.recv(&mut buffer).is_err());
            }
        }
    }

    #[test]
    fn what_is_too_large_for_a_train_goes_one_by_one() {
        let (client, server) = pair("127.0.0.1");
        let outcomes = [Err(Errno::INVAL), Err(Errno::CONNREFUSED)];
        let wanted = [Sent { number: 3, error: None }, Sent { number: 0, error: Some(Errno::CONNREFUSED) }];
        for (outcome, wanted) in outcomes.into_iter().zip(wanted) {
            let of = |datagram: &&[u8]| ((), datagram.len());
            let datagrams: [&[u8]; 3] = [b"one", b"two", b"six"];
            let sent = send_all(&datagrams, of, |_| outcome, |rest| send_each(&client, rest));
            assert_eq!(sent, wanted);
        }
        let mut inbox = Inbox::default();
        inbox.receive(&server, true).unwrap();
        assert_eq!(inbox.received().len(), 3);
    }

    #[test]
    fn what_cannot_be_sent_ends_a_batch_with_its_error() {
        let (client, server) = pair("127.0.0.1");
        let large = vec![0; 65_508];
        let sent = send(&client, &[b"one", b"two", &large, b"three"]);
        assert_eq!(sent, Sent { number: 2, error: Some(Errno::MSGSIZE) });
        let to = client.local_addr().unwrap();
        let sent = send_to(&server, &[(to, b"a"), (to, &large), (to, b"b")]);
        assert_eq!(sent, Sent { number: 1, error: Some(Errno::MSGSIZE) });
        assert_eq!(send_to(&server, &[(to, &large)]), Sent { number: 0, error: Some(Errno::MSGSIZE) });
    }

    #[test]
    fn errors_that_are_drained_leave_room_for_answers() {
        let session = UdpSocket::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::setsockopt(&session, nix::sys::socket::sockopt::Ipv4RecvErr, &true).unwrap();
        let backend = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = backend.local_addr().unwrap();
        drop(backend);
        session.connect(address).unwrap();
        for _ in 0..2_000 {
            let refused = send(&session, &[b"hello"]);
            assert!(matches!(refused.error, None | Some(Errno::CONNREFUSED)), "{refused:?}");
            drain_errors(&session);
        }
        let _ = session.take_error();
        session.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        let backend = UdpSocket::bind(address).unwrap();
        backend.send_to(&vec![7; 60_000], session.local_addr().unwrap()).unwrap();
        assert_eq!(session.recv(&mut vec![0; 65_536]).unwrap(), 60_000);
    }

    #[test]
    fn what_came_before_a_socket_was_connected_is_dropped() {
        let [stranger, session, backend] = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        for datagram in [&b"forged"[..], b""] {
            stranger.send_to(datagram, session.local_addr().unwrap()).unwrap();
        }
        session.connect(backend.local_addr().unwrap()).unwrap();
        drain(&session);
        backend.send_to(b"answer", session.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(session.recv(&mut buffer).unwrap(), 6);
        assert_eq!(&buffer[..6], b"answer");
    }

    #[test]
    fn answers_gather_until_they_are_cleared() {
        let (session, backend) = pair("127.0.0.1");
        let mut outbox = Outbox::default();
        let to = session.local_addr().unwrap();
        let answers = [(to, &b"1"[..]); BURST + 1];
        for _ in 0..BATCH / BURST {
            assert_eq!(send_to(&backend, &answers).number, BURST + 1);
        }
        let mut gathered = 0;
        while gathered < BATCH {
            let (number, is_full) = outbox.receive(&session).unwrap();
            assert_eq!((number, is_full), (BURST, true));
            gathered += number;
        }
        assert_eq!((outbox.len(), outbox.datagram(BATCH - 1)), (BATCH, &b"1"[..]));
        outbox.clear();
        assert_eq!(outbox.receive(&session).unwrap(), (BATCH / BURST, true));
        assert!(outbox.receive(&session).is_err());
    }
}
