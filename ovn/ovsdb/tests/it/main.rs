//! The client against real neighbours: ovsdb-server, alone and as a cluster, and servers that misbehave. One binary, so that it is linked once.

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod examples;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod monitor;
#[cfg(test)]
mod parts;
#[cfg(test)]
mod reconnect;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transactions;
