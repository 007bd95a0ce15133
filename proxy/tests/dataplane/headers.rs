//! PROXY protocol: what backends are sent, and what is taken from trusted proxies.

use std::{net::SocketAddr, time::Duration};

use fiberlb_proxy::{
    dataplane::{Algorithm, DataplaneSpec, HeaderRefusal, SourceIpPersistence},
    proxy_protocol::{
        Endpoints, Header, HeaderProgress, MAX_V2, Subject, Tlvs, Version, encode, parse, tlv_type,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use crate::{
    peers::{Server, is_reset, says_and_hears},
    world::{World, backend, own_address, patiently},
};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

fn sends(version: Version) -> impl FnOnce(&mut DataplaneSpec) {
    move |configuration| configuration.pools[0].header = Some(version)
}

fn trusts(cidr: &str) -> impl FnOnce(&mut DataplaneSpec) {
    let cidr = cidr.parse().unwrap();
    move |configuration| configuration.listeners[0].trusted_proxies = vec![cidr]
}

/// A server that hands all that it has read to the test, when its client has closed.
pub(crate) async fn recorder() -> (Server, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let server = Server::start(move |mut stream: TcpStream| {
        let sender = sender.clone();
        async move {
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            sender.send(all).unwrap();
        }
    });
    (server.await, receiver)
}

pub(crate) async fn recorded(receiver: &mut mpsc::UnboundedReceiver<Vec<u8>>) -> Vec<u8> {
    patiently(receiver.recv()).await.unwrap()
}

/// Says something and closes. Returns its own address.
async fn says(world: &World, words: &[u8]) -> SocketAddr {
    let mut client = world.connect().await;
    client.write_all(words).await.unwrap();
    client.shutdown().await.unwrap();
    let address = client.local_addr().unwrap();
    let _ = patiently(client.read_to_end(&mut Vec::new())).await;
    address
}

/// A header and what follows it.
fn split(bytes: &[u8]) -> (Header, &[u8]) {
    let HeaderProgress::Complete { header, length } = parse(bytes).unwrap() else { panic!("{bytes:?}") };
    (header, &bytes[length..])
}

fn tcp(source: SocketAddr, destination: SocketAddr) -> Subject {
    Subject::Tcp(Endpoints { source, destination })
}

fn stated() -> Header {
    tcp("192.0.2.7:40000".parse().unwrap(), "198.51.100.1:443".parse().unwrap()).into()
}

fn refused(world: &World, refusal: HeaderRefusal) -> u64 {
    let place = HeaderRefusal::ALL.iter().position(|it| *it == refusal).unwrap();
    world.counters().refused_headers[place]
}

#[tokio::test]
async fn version_1_is_a_line_before_the_clients_bytes() {
    let (server, mut received) = recorder().await;
    let world = World::with(1, vec![backend(1, server.address)], sends(Version::V1)).await;
    let client = says(&world, b"hello").await;
    let (from, to) = (client.port(), world.address.port());
    let line = format!("PROXY TCP4 {} {} {from} {to}\r\nhello", client.ip(), world.address.ip());
    assert_eq!(recorded(&mut received).await, line.as_bytes());
    let counters = world.quiet().await;
    assert_eq!((counters.bytes_in, counters.bytes_out), (5, 0), "the client's bytes alone");
}

#[tokio::test]
async fn version_2_is_binary_with_an_id_and_a_checksum() {
    let (server, mut received) = recorder().await;
    let world = World::with(1, vec![backend(1, server.address)], sends(Version::V2)).await;
    let mut ids = std::collections::HashSet::new();
    for _ in 0..2 {
        let client = says(&world, b"hello").await;
        let bytes = recorded(&mut received).await;
        let (SocketAddr::V4(source), SocketAddr::V4(destination)) = (client, world.address) else { panic!() };
        let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
        let addresses = [&source.ip().octets()[..], &destination.ip().octets(), &ports].concat();
        let length = 12 + 3 + 36 + 3 + 4;
        assert_eq!(bytes[..16], [&SIGNATURE[..], &[0x21, 0x11, 0, length]].concat());
        assert_eq!(bytes[16..28], addresses);
        assert_eq!(bytes[28..31], [tlv_type::UNIQUE_ID, 0, 36]);
        assert_eq!(bytes[67..70], [tlv_type::CRC32C, 0, 4]);
        let (header, rest) = split(&bytes);
        assert_eq!((header.subject, rest), (tcp(client, world.address), &b"hello"[..]));
        let id = std::str::from_utf8(header.tlvs.find(tlv_type::UNIQUE_ID).unwrap()).unwrap();
        assert!(ids.insert(id.parse::<uuid::Uuid>().unwrap()), "{id} twice");
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_has_the_header_before() {
    for version in [Version::V1, Version::V2] {
        let server = Server::start(|mut stream: TcpStream| async move {
            let mut bytes = Vec::new();
            while !matches!(parse(&bytes), Ok(HeaderProgress::Complete { .. })) {
                bytes.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(b"220 mail").await.unwrap();
        });
        let server = server.await;
        let world = World::with(1, vec![backend(1, server.address)], sends(version)).await;
        let mut greeting = Vec::new();
        patiently(world.connect().await.read_to_end(&mut greeting)).await.unwrap();
        assert_eq!(greeting, b"220 mail");
    }
}

#[tokio::test]
async fn the_destination_is_what_the_client_has_connected_to() {
    let (server, mut received) = recorder().await;
    let vips: Vec<SocketAddr> = vec!["[2001:db8::1]:80".parse().unwrap(), "198.51.100.1:80".parse().unwrap()];
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].frontends = vips.clone();
        sends(Version::V2)(configuration);
    })
    .await;
    let client = says(&world, b"").await;
    let bytes = recorded(&mut received).await;
    assert_eq!(split(&bytes).0.subject, tcp(client, vips[1]));
}

#[tokio::test]
async fn the_destination_is_the_port_of_the_range_that_the_client_has_connected_to() {
    let first = SocketAddr::from((own_address(), 9_000));
    let mut servers = Vec::new();
    for offset in 0..3 {
        servers
            .push(tokio::net::TcpListener::bind(SocketAddr::new(first.ip(), 9_000 + offset)).await.unwrap());
    }
    let mut world = World::with(1, vec![backend(1, first)], |configuration| {
        let listener = &mut configuration.listeners[0];
        (listener.ports, listener.frontends) = (3, vec!["198.51.100.1:80".parse().unwrap()]);
        sends(Version::V2)(configuration);
    })
    .await;
    for (offset, server) in (0..).zip(&servers) {
        world.address.set_port(8_080 + offset);
        let client = world.connect().await;
        let own = client.local_addr().unwrap();
        drop(client);
        let (mut stream, _) = patiently(server.accept()).await.unwrap();
        let mut bytes = Vec::new();
        patiently(stream.read_to_end(&mut bytes)).await.unwrap();
        assert_eq!(split(&bytes).0.subject, tcp(own, SocketAddr::from(([198, 51, 100, 1], 80 + offset))));
    }
    world.configuration.listeners[0].ports = u16::MAX;
    let outcome = world.apply().await.remove(0);
    assert!(outcome.result.is_err(), "there are not so many ports");
}

#[tokio::test]
async fn what_a_trusted_proxy_states_is_passed_on_with_its_tlvs() {
    let (server, mut received) = recorder().await;
    let mut world = World::with(1, vec![backend(1, server.address)], trusts("127.0.0.0/8")).await;
    let mut header = stated();
    for (kind, value) in [(tlv_type::AUTHORITY, "shop.example"), (tlv_type::NETNS, "blue"), (0xEA, "vpce")] {
        header.tlvs.push(kind, value.as_bytes()).unwrap();
    }
    for version in [Version::V1, Version::V2] {
        world.configuration.pools[0].header = None;
        world.apply_all().await;
        says(&world, &[&encode(version, &header)[..], b"hello"].concat()).await;
        assert_eq!(recorded(&mut received).await, b"hello", "the header is taken");
        for sent in [Version::V1, Version::V2] {
            sends(sent)(&mut world.configuration);
            world.apply_all().await;
            says(&world, &[&encode(version, &header)[..], b"hello"].concat()).await;
            let bytes = recorded(&mut received).await;
            let (passed, rest) = split(&bytes);
            assert_eq!((passed.subject, rest), (header.subject, &b"hello"[..]));
            let kinds: Vec<u8> = passed.tlvs.iter().map(|(kind, _)| kind).collect();
            let expected: &[u8] = match (version, sent) {
                (_, Version::V1) => &[],
                (Version::V1, Version::V2) => &[tlv_type::UNIQUE_ID],
                (Version::V2, Version::V2) => &[tlv_type::AUTHORITY, 0xEA, tlv_type::UNIQUE_ID],
            };
            assert_eq!(kinds, expected);
        }
    }
    header.tlvs.push(tlv_type::UNIQUE_ID, b"upstream's").unwrap();
    says(&world, &encode(Version::V2, &header)).await;
    let bytes = recorded(&mut received).await;
    let ids: Vec<Vec<u8>> =
        split(&bytes).0.tlvs.iter().filter(|(kind, _)| *kind == 5).map(|it| it.1.to_vec()).collect();
    assert_eq!(ids, [b"upstream's"], "one id for the connection on all hops");
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_the_clients_bytes_right_behind() {
    let server = Server::echo().await;
    let world = World::with(1, vec![backend(1, server.address)], trusts("127.0.0.0/8")).await;
    let mut large = stated();
    large.tlvs.push(0xE0, &[7; MAX_V2 - 16 - 12 - 3 - 7]).unwrap();
    let headers =
        [encode(Version::V1, &stated()), encode(Version::V2, &stated()), encode(Version::V2, &large)];
    assert_eq!(headers[2].len(), MAX_V2);
    for header in headers {
        let step = if header.len() > 200 { 397 } else { 1 };
        let cuts: Vec<usize> = (1..header.len()).step_by(step).chain([header.len()]).collect();
        for cut in cuts {
            let mut client = world.connect().await;
            client.set_nodelay(true).unwrap();
            client.write_all(&header[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            client.write_all(&[&header[cut..], b"more"].concat()).await.unwrap();
            let mut heard = [0; 4];
            patiently(client.read_exact(&mut heard)).await.unwrap();
            assert_eq!(&heard, b"more");
            says_and_hears(&mut client).await;
        }
        let mut client = world.connect().await;
        client.set_nodelay(true).unwrap();
        for byte in header.chunks(step) {
            client.write_all(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        says_and_hears(&mut client).await;
    }
    let counters = world.quiet().await;
    assert_eq!(
        (counters.refused_headers, counters.reset_by_client + counters.reset_by_backend),
        ([0; 6], 0),
        "{counters:?}"
    );
}

#[tokio::test]
async fn a_trusted_proxy_without_a_valid_header_is_reset_and_counted() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], trusts("127.0.0.0/8")).await;
    let mut broken = encode(Version::V2, &stated());
    *broken.last_mut().unwrap() ^= 1;
    let mut oversized = SIGNATURE.to_vec();
    oversized.extend([0x21, 0x11, 0xFF, 0xFF]);
    let cases: [(&[u8], HeaderRefusal); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", HeaderRefusal::Missing),
        (b"\x16\x03\x01\x02\0\x01", HeaderRefusal::Missing),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 x\r\n", HeaderRefusal::Malformed),
        (&[b'P'; 1], HeaderRefusal::Closed),
        (&oversized, HeaderRefusal::TooLong),
        (&broken, HeaderRefusal::Checksum),
    ];
    for (bytes, refusal) in cases {
        let before = refused(&world, refusal);
        let mut client = world.connect().await;
        client.write_all(bytes).await.unwrap();
        if refusal == HeaderRefusal::Closed {
            client.shutdown().await.unwrap();
        }
        is_reset(&mut client).await;
        world.quiet().await;
        assert_eq!(refused(&world, refusal), before + 1, "{refusal:?}");
    }
    let counters = world.quiet().await;
    assert_eq!((counters.refused_headers.iter().sum::<u64>(), counters.failed()), (6, 6));
}

#[tokio::test]
async fn a_silent_trusted_proxy_is_reset_in_time() {
    let server = Server::echo().await;
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        trusts("127.0.0.0/8")(configuration);
        configuration.listeners[0].limits.client_data = Some(Duration::from_millis(100));
    })
    .await;
    for beginning in [&b""[..], b"PROXY", SIGNATURE] {
        let mut client = world.connect().await;
        client.write_all(beginning).await.unwrap();
        is_reset(&mut client).await;
    }
    world.quiet().await;
    assert_eq!(refused(&world, HeaderRefusal::Timeout), 3);
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let (server, mut received) = recorder().await;
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        trusts("192.0.2.0/24")(configuration);
        sends(Version::V1)(configuration);
    })
    .await;
    let forged = encode(Version::V2, &stated());
    let client = says(&world, &forged).await;
    let bytes = recorded(&mut received).await;
    let (header, rest) = split(&bytes);
    assert_eq!((header.subject, rest), (tcp(client, world.address), &forged[..]), "bytes like any others");
}

#[tokio::test]
async fn a_proxys_own_connections_have_its_own_address() {
    let (server, mut received) = recorder().await;
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        trusts("127.0.0.0/8")(configuration);
        sends(Version::V2)(configuration);
    })
    .await;
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        &encode(Version::V2, &Subject::Local.into()),
        &encode(Version::V2, &Subject::Unknown.into()),
    ] {
        let client = says(&world, header).await;
        let bytes = recorded(&mut received).await;
        assert_eq!(split(&bytes).0.subject, tcp(client, world.address));
    }
}

async fn is_served(world: &World, header: &[u8]) -> bool {
    let mut client = world.connect().await;
    client.write_all(&[header, b"hello"].concat()).await.unwrap();
    let mut heard = Vec::new();
    let heard = patiently(async { client.read_buf(&mut heard).await.is_ok() && heard == b"hello" });
    heard.await
}

#[tokio::test]
async fn the_stated_address_is_the_one_that_is_allowed() {
    let server = Server::echo().await;
    let world = World::with(1, vec![backend(1, server.address)], |configuration| {
        trusts("127.0.0.0/8")(configuration);
        configuration.listeners[0].allowed_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    let other = Header::from(tcp("203.0.113.7:1".parse().unwrap(), "198.51.100.1:443".parse().unwrap()));
    for version in [Version::V1, Version::V2] {
        assert!(is_served(&world, &encode(version, &stated())).await);
        assert!(!is_served(&world, &encode(version, &other)).await);
    }
    assert!(
        is_served(&world, &encode(Version::V2, &Subject::Local.into())).await,
        "a check of the proxy itself"
    );
    assert!(!is_served(&world, b"PROXY UNKNOWN\r\n").await, "a client that nobody knows");
    assert_eq!(world.quiet().await.refused_by_cidr, 3);
}

/// The name of the backend that a stated client gets, by a new connection of another proxy each time.
async fn name_for(world: &World, client: SocketAddr, proxy: u8) -> u8 {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 9, 9, proxy], 0).into()).unwrap();
    let mut stream = socket.connect(world.address).await.unwrap();
    let header = Header::from(tcp(client, world.address));
    stream.write_all(&encode(Version::V1, &header)).await.unwrap();
    patiently(stream.read_u8()).await.unwrap()
}

#[tokio::test]
async fn a_client_is_recognised_by_its_stated_address() {
    let mut servers = Vec::new();
    for name in 1..=4 {
        servers.push(Server::named(name).await);
    }
    let backends: Vec<_> =
        servers.iter().zip(1..).map(|(server, number)| backend(number, server.address)).collect();
    for (algorithm, is_persistent) in [(Algorithm::SourceIp, false), (Algorithm::RoundRobin, true)] {
        let world = World::with(1, backends.clone(), |configuration| {
            trusts("127.9.0.0/16")(configuration);
            configuration.pools[0].algorithm = algorithm;
            let timeout = Duration::from_secs(600);
            configuration.pools[0].persistence = is_persistent.then_some(SourceIpPersistence { timeout });
        })
        .await;
        let mut met = std::collections::HashSet::new();
        for client in (1..20_u8).map(|number| SocketAddr::from(([192, 0, 2, number], 1))) {
            let first = name_for(&world, client, 1).await;
            for (proxy, port) in [(2, 2), (3, 3)] {
                assert_eq!(name_for(&world, SocketAddr::new(client.ip(), port), proxy).await, first);
            }
            met.insert(first);
        }
        assert!(met.len() > 1);
    }
}

#[tokio::test]
async fn a_backend_that_refuses_is_not_the_end_of_a_header() {
    let (refusing, _socket) = crate::peers::refusing();
    let (server, mut received) = recorder().await;
    let backends = vec![backend(1, refusing), backend(2, server.address)];
    let world = World::with(1, backends, sends(Version::V1)).await;
    for _ in 0..2 {
        says(&world, b"hello").await;
        let bytes = recorded(&mut received).await;
        assert_eq!(split(&bytes).1, b"hello");
    }
    assert_eq!(Tlvs::default().iter().count(), 0);
}
