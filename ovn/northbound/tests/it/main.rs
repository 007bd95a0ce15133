//! Replica and planner against a real ovsdb-server with the northbound schema, and against bytes that make no sense. One binary, so that it is linked once.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod client;
#[cfg(test)]
mod double;
#[cfg(test)]
mod fence;
#[cfg(test)]
mod planner;
