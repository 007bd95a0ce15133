//! A way from a chassis to a port of the test's own machine: the two share no network.

use std::net::SocketAddr;

use fiberlb_lab::Lab;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Passes on what comes to an address on a chassis. Ends when dropped.
pub(crate) struct Relay {
    chassis: String,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Relay {
    /// From a free port on loopback of a chassis to `target`.
    pub(crate) fn open(lab: &Lab, chassis: &str, target: SocketAddr) -> Relay {
        let netns = lab.world().netns(&format!("chassis.{chassis}")).unwrap();
        let listener = netns.run(|| std::net::TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut there) = TcpStream::connect(target).await {
                        // How a connection ends is for those at its ends.
                        let _ = copy_bidirectional(&mut here, &mut there).await;
                    }
                });
            }
        });
        Relay { chassis: chassis.to_owned(), address, serving }
    }

    /// The chassis where it begins.
    pub(crate) fn chassis(&self) -> &str {
        &self.chassis
    }

    /// Address of its beginning there.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
