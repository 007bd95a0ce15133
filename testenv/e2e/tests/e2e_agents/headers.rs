//! PROXY protocol: backends learn who their clients are, by an OVN row and from the node that has the VIP, in both families,
//! and from a proxy in front that is trusted.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::api::{id_of, online, tree_now, until_tree};
use crate::common::until;
use crate::resources::{DIRECT_VIPS, OVN_PORT, VIPS, at, backend, listener, load_balancer, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site};

const PATIENCE: Duration = Duration::from_secs(10);
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Backends on both families that read a header of version 2 and say what it states.
struct Backends {
    /// Connections with LOCAL, and those without a header.
    local: Arc<AtomicU64>,
    without: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Backends {
    fn start(vm: &Vm) -> Self {
        let (local, without) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let serve = |ip: IpAddr| {
            let listener = vm.tcp_listener(SocketAddr::new(ip, BACKEND_PORT)).unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = TcpListener::from_std(listener).unwrap();
            let (local, without) = (Arc::clone(&local), Arc::clone(&without));
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (local, without) = (Arc::clone(&local), Arc::clone(&without));
                    tokio::spawn(async move {
                        match answer(stream).await {
                            Some(true) => local.fetch_add(1, Ordering::Relaxed),
                            Some(false) => 0,
                            None => without.fetch_add(1, Ordering::Relaxed),
                        }
                    });
                }
            })
        };
        let tasks = [vm.ipv4().unwrap(), vm.ipv6().unwrap()].map(serve).into();
        Self { local, without, tasks }
    }
}

/// Reads a header, and says `SOURCE DESTINATION` and what comes after it. True: it was LOCAL; None: there was none.
async fn answer(mut stream: TcpStream) -> Option<bool> {
    let mut prefix = [0; 16];
    stream.read_exact(&mut prefix).await.ok().filter(|_| prefix.starts_with(SIGNATURE))?;
    let mut rest = vec![0; usize::from(u16::from_be_bytes([prefix[14], prefix[15]]))];
    stream.read_exact(&mut rest).await.ok()?;
    let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    let [source, destination] = match (prefix[12], prefix[13]) {
        (0x20, _) => return Some(true),
        (0x21, 0x11) => {
            let v4 = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&rest[at..at + 4]).unwrap());
            [SocketAddr::new(v4(0), port(8)), SocketAddr::new(v4(4), port(10))]
        }
        (0x21, 0x21) => {
            let v6 = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&rest[at..at + 16]).unwrap());
            [SocketAddr::new(v6(0), port(32)), SocketAddr::new(v6(16), port(34))]
        }
        _ => return None,
    };
    let mut words = [0; 256];
    let count = stream.read(&mut words).await.ok()?;
    let said = format!("{source} {destination} {}", words[..count].escape_ascii());
    stream.write_all(said.as_bytes()).await.ok()?;
    Some(false)
}

/// Answer of the backend to a client that says `words`; none if it is reset. The client's own address, too, if it was connected.
async fn ask(client: &Vm, target: SocketAddr, words: &[u8]) -> (SocketAddr, Option<String>) {
    let socket =
        client.with_netns(|| if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() });
    let connected = timeout(PATIENCE, socket.unwrap().connect(target)).await;
    let mut stream = match connected.expect("no connection") {
        Ok(stream) => stream,
        // One that is turned away at once may be so before it knows that it was accepted.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (target, None),
        Err(error) => panic!("{target}: {error}"),
    };
    let own = stream.local_addr().unwrap();
    let mut said = Vec::new();
    let heard = async {
        stream.write_all(words).await?;
        stream.read_to_end(&mut said).await
    };
    let is_whole = timeout(PATIENCE, heard).await.expect("no answer").is_ok();
    (own, is_whole.then(|| String::from_utf8(said).unwrap()))
}

/// The client's own address and what it says are all that the backend learns of it.
async fn is_told_as_it_is(client: &Vm, target: SocketAddr, words: &[u8]) {
    let (own, said) = ask(client, target, words).await;
    assert_eq!(
        said,
        Some(format!("{own} {target} {}", words.escape_ascii())),
        "{} to {target}",
        client.name()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_learn_who_their_clients_are() {
    scenario("backends_learn_who_their_clients_are", || async {
        let site = Site::start("headers").await;
        let [b1, c1, c2] = site.vms([("b1", 1, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")]).await;
        let backends = Backends::start(&b1);
        let tree = |name: &str, vips: [&str; 2], exposure: v1::Exposure| {
            let mut tree = load_balancer(name, site.network, vips, &[1]);
            tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Proxyv2.into();
            tree.listeners = vec![v1::Listener { exposure: exposure.into(), ..listener(OVN_PORT) }];
            tree
        };
        let rows = online(&site.tenant, tree("rows", VIPS, v1::Exposure::Auto)).await;
        let direct = online(&site.tenant, tree("direct", DIRECT_VIPS, v1::Exposure::Direct)).await;
        site.lab.wait_for_sync().await.unwrap();
        let made = &rows.listeners[0];
        assert_eq!(made.datapath_in_force(), v1::Datapath::Proxy, "{made:?}");
        assert_eq!(made.datapath_reason, "the pool's protocol PROXYV2 needs it");

        let targets: Vec<SocketAddr> =
            VIPS.into_iter().chain(DIRECT_VIPS).map(|vip| at(vip, OVN_PORT)).collect();
        let forged = b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n";
        for target in &targets {
            for client in [&b1, &c1, &c2] {
                for words in [&b"hello"[..], forged] {
                    is_told_as_it_is(client, *target, words).await;
                }
            }
        }
        until("checks with a header", async || (backends.local.load(Ordering::Relaxed) >= 4).then_some(()))
            .await;
        assert_eq!(backends.without.load(Ordering::Relaxed), 0, "a connection came without a header");

        // So do those of the other family than the VIP, of clients that may connect.
        for (vip, address) in [("10.0.0.107", "fd00::1"), ("fd00::107", "10.0.0.1")] {
            let mut tree = load_balancer_v4(vip, site.network, vip, &[]);
            tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Proxyv2.into();
            tree.pools[0].backends = vec![backend(address)];
            let allowed_cidrs = ["10.0.0.11/32", "fd00::11/128"].map(str::to_owned).into();
            tree.listeners = vec![v1::Listener { allowed_cidrs, ..listener(OVN_PORT) }];
            online(&site.tenant, tree).await;
            site.lab.wait_for_sync().await.unwrap();
            is_told_as_it_is(&c1, at(vip, OVN_PORT), b"hello").await;
            assert_eq!(ask(&c2, at(vip, OVN_PORT), b"hello").await.1, None, "{vip}");
        }

        // A proxy in front, whose word is taken; that of others is not.
        for (tree, exposure) in [(&rows, v1::Exposure::Auto), (&direct, v1::Exposure::Direct)] {
            let mut changed = tree_now(&site.tenant, &id_of(tree)).await;
            changed.listeners[0].trusted_proxies = vec!["10.0.0.12/32".to_owned(), "fd00::12/128".to_owned()];
            changed.listeners[0].exposure = exposure.into();
            site.tenant.apply(changed).await;
            until_tree(&site.tenant, &id_of(tree), "the proxy trusted", |tree| {
                let state = tree.listeners[0].state.as_ref().unwrap();
                state.observed_generation == state.generation
                    && state.provisioning_status() == v1::ProvisioningStatus::Active
            })
            .await;
        }
        for target in &targets {
            let (_, said) = ask(&c2, *target, &[forged, &b"hello"[..]].concat()).await;
            assert_eq!(said.as_deref(), Some("192.0.2.7:1 192.0.2.8:2 hello"), "to {target}");
            assert_eq!(ask(&c2, *target, b"GET / HTTP/1.1\r\n\r\n").await.1, None, "no header to {target}");
            is_told_as_it_is(&c1, *target, forged).await;
        }
        let line = "fiberlb_proxy_listener_refused_headers_total";
        let labels = format!("{{listener=\"{}\",reason=\"missing\"}}", made.id);
        until("refused headers in the metrics", async || {
            let mut refused = 0.0;
            for node in &site.nodes {
                refused += node.metric(&format!("{line}{labels}")).await.unwrap();
            }
            (refused > 0.0).then_some(())
        })
        .await;
        assert_eq!(backends.without.load(Ordering::Relaxed), 0);
        site.close();
    })
    .await;
}
