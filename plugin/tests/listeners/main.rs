//! The plugin in a real process: its listeners under attack, while others are served; and what a service manager sees of it.
#![cfg(test)]

mod attacks;
mod service;
mod world;
