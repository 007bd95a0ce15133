//! The client against real neighbours: ovsdb-server, alone and as a cluster, and servers that misbehave. One binary, so that it is linked once.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod raft;
#[cfg(test)]
mod reconnect;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transactions;
