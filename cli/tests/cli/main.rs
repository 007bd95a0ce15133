//! The built command against a mock server on loopback. The real server is exercised end to end, through this command,
//! in `testenv/e2e`.

#[cfg(test)]
mod completion;
#[cfg(test)]
mod describe;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod mock;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod trees;
mod views;
