//! One file per kind of resource: its message, parsed and rendered.

mod backend;
mod health_check;
mod listener;
mod load_balancer;
mod pool;
