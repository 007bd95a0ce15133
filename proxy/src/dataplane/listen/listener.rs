//! A listener as one worker serves it.

use std::{rc::Rc, sync::Arc};

use super::{pool::WorkerPool, roster::Roster, service::Service, throttle::Throttle};

/// A listener on one worker. A change of the configuration makes a new one; connections keep the one that they began with.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) service: Arc<Service>,
    pub(super) pool: Option<Rc<WorkerPool>>,
    pub(super) roster: Roster,
    pub(super) throttles: Rc<Throttles>,
}

/// The lines that a tenant can cause.
#[derive(Debug, Default)]
pub(super) struct Throttles {
    pub(super) connect: Throttle,
    pub(super) no_backend: Throttle,
    pub(super) limit: Throttle,
    pub(super) exhausted: Throttle,
}
