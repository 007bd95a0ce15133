//! A network namespace of one's own.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::sync::Arc;

use fiberlb_proxy::sockets::{OwnNamespace, SocketFactory};
use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, Socket, Type};

/// A namespace that is gone with the last of its sockets. It has 127.0.0.0/8, ::1, and two neighbours in 192.0.2.0/24: .9
/// swallows everything, .8 is not there.
pub(crate) struct World(File);

impl World {
    /// `None`, and a line that says so, where namespaces cannot be made.
    pub(crate) fn new(test: &str) -> Option<Arc<Self>> {
        let make = || -> nix::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(File::open("/proc/thread-self/ns/net").unwrap())
        };
        match std::thread::spawn(make).join().unwrap() {
            Ok(file) => {
                let world = Arc::new(Self(file));
                world.ip("link set lo up");
                world.ip("link add silent type veth peer name other");
                world.ip("address add 192.0.2.1/24 dev silent");
                world.ip("link set other up");
                world.ip("link set silent up");
                world.ip("neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev silent");
                Some(world)
            }
            Err(error) => {
                println!("SKIPPED {test}: cannot make a network namespace: {error}");
                None
            }
        }
    }

    /// Runs `ip` inside.
    pub(crate) fn ip(&self, arguments: &str) {
        let netns = format!("--net=/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let status =
            Command::new("nsenter").args([&netns, "ip"]).args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// Runs something on a thread inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    /// A listener inside.
    pub(crate) fn listen(&self, address: &str) -> tokio::net::TcpListener {
        let address: SocketAddr = address.parse().unwrap();
        let listener = self.inside(|| std::net::TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        tokio::net::TcpListener::from_std(listener).unwrap()
    }
}

impl SocketFactory for World {
    fn socket(&self, domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        self.inside(|| OwnNamespace.socket(domain, kind, protocol))
    }
}
