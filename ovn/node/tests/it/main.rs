//! Namespaces, links and Open vSwitch against the kernel, `ip` and ovs-vswitchd. One binary, so that it is linked once.

#[cfg(test)]
mod docs;
#[cfg(test)]
mod netlink;
#[cfg(test)]
mod netns;
#[cfg(test)]
mod ovs;
#[cfg(test)]
mod vswitch;
#[cfg(test)]
mod world;
