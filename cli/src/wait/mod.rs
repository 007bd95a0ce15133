//! `--wait`: until what was written is in force, or gone.

mod tracker;

use std::time::Duration;

use fiberlb_proto::v1::LoadBalancerTree;
use tokio::time::{Instant, timeout_at};

use tracker::Tracker;
pub(crate) use tracker::{Target, Until};

use crate::client::Client;
use crate::failure::Failure;
use crate::follow::{Follow, Step};
use crate::kinds::{BACKEND, HEALTH_CHECK, LISTENER, LOAD_BALANCER, POOL};
use crate::render::{Output, escape::clean};
use crate::resource::Resource;

/// How long nothing is said: most writes are in force by then.
const QUIET: Duration = Duration::from_secs(1);

/// One wait for things of one tree.
pub(crate) struct Wait {
    /// Which tree. Empty: any.
    pub(crate) load_balancer_id: String,
    /// For what.
    pub(crate) targets: Vec<Target>,
}

impl Wait {
    /// For one resource that was just written. A call may be needed to find its tree.
    pub(crate) async fn of(client: &Client, resource: &Resource, is_delete: bool) -> Self {
        let until =
            if is_delete { Until::Gone } else { Until::Active { generation: resource.state().generation } };
        let target = Target { kind: resource.kind, id: resource.id(), label: resource.label(), until };
        Self { load_balancer_id: root_id(client, resource).await, targets: vec![target] }
    }

    /// For everything in a tree that was just applied.
    pub(crate) fn of_tree(tree: &LoadBalancerTree) -> Self {
        let root = tree.load_balancer.as_ref();
        let mut targets: Vec<Target> = root
            .into_iter()
            .map(|it| Target::written(&LOAD_BALANCER, &it.id, &it.name, it.state.as_ref()))
            .collect();
        targets.extend(
            tree.listeners.iter().map(|it| Target::written(&LISTENER, &it.id, &it.name, it.state.as_ref())),
        );
        for pool in &tree.pools {
            targets.extend(
                pool.pool.iter().map(|it| Target::written(&POOL, &it.id, &it.name, it.state.as_ref())),
            );
            let check = pool.health_check.iter();
            targets
                .extend(check.map(|it| Target::written(&HEALTH_CHECK, &it.id, &it.name, it.state.as_ref())));
            let backend_name = |it: &fiberlb_proto::v1::Backend| {
                if it.name.is_empty() { format!("{} port {}", it.address, it.port) } else { it.name.clone() }
            };
            let backends = pool.backends.iter();
            targets.extend(
                backends.map(|it| Target::written(&BACKEND, &it.id, &backend_name(it), it.state.as_ref())),
            );
        }
        Self { load_balancer_id: root.map(|root| root.id.clone()).unwrap_or_default(), targets }
    }

    /// Waits, and says on standard error for what, once it takes longer than a second.
    ///
    /// # Errors
    /// Time-out, with what is missing and why; a target that somebody else deleted; a status that trying again does not
    /// change.
    pub(crate) async fn run(
        self,
        client: &Client,
        out: &mut Output,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut follow = Follow::new(client, &self.load_balancer_id);
        let mut tracker = Tracker::new(self.targets);
        let mut progress = Progress::new();
        let mut trouble = None;
        while !tracker.is_done() {
            if Instant::now() >= deadline {
                return Err(Failure::timed_out(missing(&tracker, trouble)));
            }
            let until = progress.wake_by().map_or(deadline, |wake| wake.min(deadline));
            match timeout_at(until, follow.next()).await {
                Ok(step) => {
                    let step = step.map_err(|status| client.plain_failure(status.into()))?;
                    trouble = take(&mut tracker, step)?;
                }
                Err(_) => progress.end_quiet(),
            }
            progress.say(out, &missing(&tracker, trouble.clone()));
        }
        Ok(())
    }
}

/// Takes one step of the stream into account; returns why the stream is not to be had, if it is not.
fn take(tracker: &mut Tracker, step: Step) -> Result<Option<String>, Failure> {
    match step {
        Step::Opened => tracker.begin(),
        Step::Event(event) => tracker.observe(&event)?,
        Step::Gone => tracker.gone()?,
        Step::Broken(status) => return Ok(Some(status.message().to_owned())),
    }
    Ok(None)
}

/// What is still missing, a line each.
fn missing(tracker: &Tracker, trouble: Option<String>) -> Vec<String> {
    let trouble = trouble.into_iter().map(|trouble| format!("the stream of events is broken: {trouble}"));
    tracker.missing().into_iter().chain(trouble).collect()
}

/// The load balancer that a resource belongs to; empty if it cannot be found out, which watches all.
async fn root_id(client: &Client, resource: &Resource) -> String {
    let Some(parent_id) = resource.parent_id() else { return resource.id() };
    if resource.kind.parent.is_some_and(|parent| parent.parent.is_none()) {
        return parent_id;
    }
    match client.get(&POOL, &parent_id).await {
        Ok(pool) => pool.parent_id().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// What was said, so that it is said once.
pub(crate) struct Progress {
    quiet_until: Option<Instant>,
    said: Vec<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { quiet_until: Some(Instant::now() + QUIET), said: Vec::new() }
    }

    /// When there is something to say even if nothing happens.
    fn wake_by(&self) -> Option<Instant> {
        self.quiet_until
    }

    fn end_quiet(&mut self) {
        self.quiet_until = None;
    }

    /// Says what is new of it, unless it is too early.
    pub(crate) fn say(&mut self, out: &mut Output, lines: &[String]) {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.quiet_until = None;
        for line in lines.iter().filter(|line| !self.said.contains(line)) {
            out.progress(&format!("waiting: {}", clean(line)));
        }
        self.said = lines.to_vec();
    }
}
