//! `--wait`: waits until a write is active, or a resource deleted.

mod tracker;

use std::time::Duration;

use prost_reflect::DynamicMessage;
use tokio::time::{Instant, timeout_at};

use tracker::Tracker;
pub(crate) use tracker::{Aim, Target, Until};

use crate::args::{Condition, WaitArgs};
use crate::changes::resources;
use crate::client::Client;
use crate::event_stream::{EventStream, Step};
use crate::failure::Failure;
use crate::kinds::{BACKEND, LOAD_BALANCER, POOL};
use crate::render::{Output, escape::clean};
use crate::resolve;
use crate::resource::Resource;

/// Time without progress messages: most writes are active by then.
const QUIET: Duration = Duration::from_secs(1);

/// Waits for a status of a load balancer and of everything below it.
///
/// # Errors
/// Unknown or ambiguous name; timeout; a status that cannot come.
pub(crate) async fn run(client: &Client, out: &mut Output, args: &WaitArgs) -> Result<(), Failure> {
    let deadline = Instant::now() + args.timeout;
    let root = match resolve::find(client, &LOAD_BALANCER, &args.load_balancer).await? {
        Some(root) => root,
        None if args.condition == Condition::Deleted => return Ok(()),
        None => return Err(resolve::unknown(&LOAD_BALANCER, &args.load_balancer)),
    };
    if args.condition == Condition::Deleted {
        return Wait::of(client, &root, Until::Gone).await.run(client, out, deadline).await;
    }
    let tree = client.tree(&root.id()).await.map_err(|error| client.plain_failure(error))?;
    Wait::of_tree(&tree, args.condition == Condition::Online).run(client, out, deadline).await
}

/// Wait for resources of one tree.
pub(crate) struct Wait {
    /// Id of the tree; empty for any.
    pub(crate) load_balancer_id: String,
    /// Resources to wait for.
    pub(crate) targets: Vec<Target>,
}

impl Wait {
    /// Wait for one resource that was just written. May need a call to find its tree.
    pub(crate) async fn of(client: &Client, resource: &Resource, until: Until) -> Self {
        let target = Target { kind: resource.kind, id: resource.id(), label: resource.label(), until };
        Self { load_balancer_id: root_id(client, resource).await, targets: vec![target] }
    }

    /// Wait for everything in a tree that was just applied, and, for `online`, for its load balancer to serve and for a verdict on
    /// each backend that is checked.
    pub(crate) fn of_tree(tree: &DynamicMessage, online: bool) -> Self {
        let resources = resources(tree);
        let root = resources.first().map(Resource::id).unwrap_or_default();
        let mut targets: Vec<Target> = resources.iter().map(Target::written).collect();
        for Target { kind, until, .. } in targets.iter_mut().filter(|_| online) {
            let aim_of_kind = match kind.field {
                field if field == LOAD_BALANCER.field => Aim::Online,
                field if field == BACKEND.field => Aim::Checked,
                _ => Aim::Active,
            };
            if let Until::Active { aim, .. } = until {
                *aim = aim_of_kind;
            }
        }
        Self { load_balancer_id: root, targets }
    }

    /// Waits. After a second, reports on standard error what it waits for.
    ///
    /// # Errors
    /// Timeout, with the pending targets and their reasons; a target that was deleted; a status that a retry does not change.
    pub(crate) async fn run(
        self,
        client: &Client,
        out: &mut Output,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut stream = EventStream::new(client, &self.load_balancer_id);
        let mut tracker = Tracker::new(self.targets);
        let mut progress = Progress::new();
        let mut stream_error = None;
        while !tracker.is_done() {
            if Instant::now() >= deadline {
                return Err(Failure::timed_out(pending(&tracker, stream_error)));
            }
            let until = progress.wake_by().map_or(deadline, |wake| wake.min(deadline));
            match timeout_at(until, stream.next()).await {
                Ok(step) => {
                    let step = step.map_err(|status| client.plain_failure(status.into()))?;
                    stream_error = take(&mut tracker, step)?;
                }
                Err(_) => progress.end_quiet(),
            }
            progress.print(out, &pending(&tracker, stream_error.clone()));
        }
        Ok(())
    }
}

/// Processes one step of the stream; returns the reason if the stream is broken.
fn take(tracker: &mut Tracker, step: Step) -> Result<Option<String>, Failure> {
    match step {
        Step::Opened => tracker.begin(),
        Step::Event(event) => tracker.observe(&event)?,
        Step::Gone => tracker.gone()?,
        Step::Broken(status) => return Ok(Some(status.message().to_owned())),
    }
    Ok(None)
}

/// Reasons why the wait is not over, a line each.
fn pending(tracker: &Tracker, stream_error: Option<String>) -> Vec<String> {
    let broken = stream_error.into_iter().map(|error| format!("the event stream is broken: {error}"));
    tracker.pending().into_iter().chain(broken).collect()
}

/// Id of a resource's load balancer; empty, to watch all, if it cannot be found.
pub(crate) async fn root_id(client: &Client, resource: &Resource) -> String {
    let Some(parent_id) = resource.parent_id() else { return resource.id() };
    if resource.kind.parent.is_some_and(|parent| parent.parent.is_none()) {
        return parent_id;
    }
    match client.get(&POOL, &parent_id).await {
        Ok(pool) => pool.parent_id().unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Progress messages, each printed once.
pub(crate) struct Progress {
    quiet_until: Option<Instant>,
    printed: Vec<String>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { quiet_until: Some(Instant::now() + QUIET), printed: Vec::new() }
    }

    /// End of the quiet time, at which messages are due even if nothing happens.
    fn wake_by(&self) -> Option<Instant> {
        self.quiet_until
    }

    fn end_quiet(&mut self) {
        self.quiet_until = None;
    }

    /// Prints the lines that were not printed before, unless it is too early.
    pub(crate) fn print(&mut self, out: &mut Output, lines: &[String]) {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.quiet_until = None;
        for line in lines.iter().filter(|line| !self.printed.contains(line)) {
            out.progress(&format!("waiting: {}", clean(line)));
        }
        self.printed = lines.to_vec();
    }
}
