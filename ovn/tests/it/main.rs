//! The OVSDB client, the replica and the planner against real neighbours: ovsdb-server with the northbound schema, and
//! servers that misbehave; namespaces, links and Open vSwitch against the kernel, `ip` and ovs-vswitchd. One binary, so that it is linked once.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod double;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod netlink;
#[cfg(test)]
mod netns;
#[cfg(test)]
mod ovs;
#[cfg(test)]
mod page;
#[cfg(test)]
mod planner;
#[cfg(test)]
mod raft;
#[cfg(test)]
mod reconnect;
#[cfg(test)]
mod regressions;
#[cfg(test)]
mod server;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transactions;
#[cfg(test)]
mod vswitch;
#[cfg(test)]
mod world;
