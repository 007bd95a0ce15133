//! The plugin's three listeners under attack, in a real process: others are served meanwhile.
#![cfg(test)]

mod attacks;
mod world;
