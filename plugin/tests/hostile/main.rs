//! Floods, and the largest and worst that a client can send, each against a plugin of its own: others are served meanwhile, and
//! its memory stays within bounds. `make test-hostile` runs them; they are slow, or load a machine.
#![cfg(test)]

mod limits;
mod lists;
mod texts;
mod trees;
mod world;
