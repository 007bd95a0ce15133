//! A listening socket on one worker, served as its transport asks for.

use std::{io, net::IpAddr, rc::Rc, sync::Arc};

use crate::dataplane::{
    listen::{Acceptor, ConnectionBudget, ListeningSocket, WorkerListener},
    udp::{Receiver, UdpResources},
};

/// A listening socket that is served.
#[derive(Debug)]
pub(super) enum Binding {
    /// Accepts connections.
    Acceptor(Acceptor),
    /// Receives datagrams.
    Receiver(Receiver),
}

impl Binding {
    /// Starts to serve. Needs the worker's runtime.
    pub(super) fn start(
        socket: ListeningSocket,
        address: IpAddr,
        listener: Rc<WorkerListener>,
        budget: Arc<ConnectionBudget>,
        udp: &Rc<UdpResources>,
    ) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Stream(socket) => {
                Self::Acceptor(Acceptor::start(socket, address, listener, budget)?)
            }
            ListeningSocket::Datagram(socket) => {
                Self::Receiver(Receiver::start(socket, address, listener, budget, udp)?)
            }
        })
    }

    /// Serves this listener from now on.
    pub(super) fn reassign(&self, listener: Rc<WorkerListener>) {
        match self {
            Self::Acceptor(acceptor) => acceptor.reassign(listener),
            Self::Receiver(receiver) => receiver.reassign(listener),
        }
    }

    /// Closes the socket. Established connections go on; sessions end.
    pub(super) async fn close(self) {
        match self {
            Self::Acceptor(acceptor) => acceptor.close().await,
            Self::Receiver(receiver) => receiver.close().await,
        }
    }
}
