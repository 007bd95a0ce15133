//! Content of the mock server, generic over the kinds of resources by reflection.

use std::collections::BTreeMap;
use std::sync::Mutex;

use fiberlb_proto::FILE_DESCRIPTOR_SET;
use fiberlb_proto::v1::watch_event::Type;
use fiberlb_proto::v1::{
    BackendHealth, Event, Node, NodeStatus, NodeVerdict, OperatingStatus, ProvisioningStatus, ResourceState,
    WatchEvent,
};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _, Value};
use tokio::sync::{broadcast, mpsc, watch};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Resources in one answer, unless the client asks for fewer: few, so that every list has pages.
const PAGE: usize = 2;

/// A kind: its message, its field, the field of its parent's id.
pub(super) type Kind = (&'static str, &'static str, Option<&'static str>);

pub(super) const LOAD_BALANCER: Kind = ("LoadBalancer", "load_balancer", None);
pub(super) const LISTENER: Kind = ("Listener", "listener", Some("load_balancer_id"));
pub(super) const POOL: Kind = ("Pool", "pool", Some("load_balancer_id"));
pub(super) const BACKEND: Kind = ("Backend", "backend", Some("pool_id"));
pub(super) const HEALTH_CHECK: Kind = ("HealthCheck", "health_check", Some("pool_id"));

/// Content of the server, and the requests that it received.
pub(crate) struct World {
    schema: DescriptorPool,
    held: Mutex<Held>,
    events: broadcast::Sender<WatchEvent>,
    watches: watch::Sender<u32>,
}

#[derive(Default)]
struct Held {
    objects: BTreeMap<String, (Kind, DynamicMessage)>,
    requests: Vec<serde_json::Value>,
    nodes: Vec<Node>,
    verdicts: Vec<NodeVerdict>,
    events: Vec<Event>,
    is_slow: bool,
}

impl World {
    pub(super) fn new() -> Self {
        let schema = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        Self {
            schema,
            held: Mutex::default(),
            events: broadcast::channel(1024).0,
            watches: watch::channel(0).0,
        }
    }

    /// Holds writes: they stay PENDING, and deleted objects stay, until [`Self::settle`].
    pub(crate) fn hold(&self) {
        self.held.lock().unwrap().is_slow = true;
    }

    /// Makes everything ACTIVE and removes deleted objects.
    pub(crate) fn settle(&self) {
        let objects = std::mem::take(&mut self.held.lock().unwrap().objects);
        for (id, (kind, message)) in objects {
            if state(&message).provisioning_status() == ProvisioningStatus::PendingDelete {
                self.emit(Type::Deleted, kind, &message);
            } else {
                self.put(id, kind, message, ProvisioningStatus::Active, "", Type::Updated);
            }
        }
    }

    /// Sets the status and reason of a pending resource.
    pub(crate) fn explain(&self, name: &str, status: ProvisioningStatus, reason: &str) {
        let found = self.held.lock().unwrap().objects.iter().find_map(|(id, (kind, message))| {
            (text(message, "name") == name).then(|| (id.clone(), *kind, message.clone()))
        });
        let (id, kind, message) = found.unwrap();
        self.put(id, kind, message, status, reason, Type::Updated);
    }

    /// Sets the proxy nodes.
    pub(crate) fn set_nodes(&self, nodes: Vec<Node>) {
        self.held.lock().unwrap().nodes = nodes;
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.held.lock().unwrap().nodes.clone()
    }

    /// Changes a node, and returns it.
    pub(super) fn change_node(&self, id: &str, change: impl Fn(&mut Node)) -> Result<Node, Status> {
        let mut held = self.held.lock().unwrap();
        let node = held.nodes.iter_mut().find(|node| node.id == id);
        let node = node.ok_or_else(|| Status::not_found(format!("there is no node {id}")))?;
        change(node);
        Ok(node.clone())
    }

    /// Removes a node that is not alive.
    pub(super) fn remove_node(&self, id: &str) -> Result<(), Status> {
        if self.change_node(id, |_| {})?.status() == NodeStatus::Alive {
            return Err(Status::failed_precondition(format!("node {id} is connected")));
        }
        self.held.lock().unwrap().nodes.retain(|node| node.id != id);
        Ok(())
    }

    /// Sets the verdicts on every backend.
    pub(crate) fn set_verdicts(&self, verdicts: Vec<NodeVerdict>) {
        self.held.lock().unwrap().verdicts = verdicts;
    }

    /// Sets the events of every load balancer.
    pub(crate) fn set_events(&self, events: Vec<Event>) {
        self.held.lock().unwrap().events = events;
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.held.lock().unwrap().events.clone()
    }

    /// Sets the operating status and reason of the resource with this address.
    pub(crate) fn break_down(&self, address: &str, reason: &str) {
        let mut held = self.held.lock().unwrap();
        let found = held.objects.values_mut().find(|(_, message)| text(message, "address") == address);
        let (_, message) = found.unwrap();
        let mut new = state(message);
        new.operating_status = OperatingStatus::Offline.into();
        new.reason = reason.to_owned();
        set_state(message, &new);
    }

    /// Verdicts on a backend, and its health.
    pub(super) fn health(&self, id: &str) -> BackendHealth {
        let verdicts = self.held.lock().unwrap().verdicts.clone();
        let down = verdicts.iter().find(|verdict| !verdict.up);
        let status = if down.is_some() { OperatingStatus::Offline } else { OperatingStatus::NoMonitor };
        let reason = down.map(|down| down.reason.clone()).unwrap_or_default();
        BackendHealth {
            backend_id: id.to_owned(),
            operating_status: status.into(),
            reason,
            verdicts,
            ..BackendHealth::default()
        }
    }

    /// Returns when somebody has opened the watch `count` times.
    pub(crate) async fn watched(&self, count: u32) {
        self.watches.subscribe().wait_for(|seen| *seen >= count).await.unwrap();
    }

    /// The last request of a write, in canonical JSON.
    pub(crate) fn last_request(&self) -> serde_json::Value {
        self.held.lock().unwrap().requests.last().unwrap().clone()
    }

    /// Number of writes.
    pub(crate) fn writes(&self) -> usize {
        self.held.lock().unwrap().requests.len()
    }

    /// A generated message as a dynamic one.
    pub(super) fn dynamic<M: prost::Message>(&self, name: &str, message: &M) -> DynamicMessage {
        let mut dynamic = DynamicMessage::new(descriptor(&self.schema, name));
        dynamic.transcode_from(message).unwrap();
        dynamic
    }

    pub(super) fn record(&self, request: &DynamicMessage) {
        self.held.lock().unwrap().requests.push(serde_json::to_value(request).unwrap());
    }

    pub(super) fn create(&self, kind: Kind, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
        self.record(request);
        let message = request.get_field_by_name(kind.1).unwrap().as_message().unwrap().clone();
        check(&message)?;
        Ok(if flag(request, "validate_only") { message } else { self.insert(kind, message) })
    }

    /// Stores a new object, with an id if it has none.
    pub(super) fn insert(&self, kind: Kind, mut message: DynamicMessage) -> DynamicMessage {
        if text(&message, "id").is_empty() {
            message.set_field_by_name("id", Value::String(uuid::Uuid::now_v7().to_string()));
        }
        if kind == LOAD_BALANCER && text(&message, "vip_address").is_empty() {
            message.set_field_by_name("vip_address", Value::String("10.0.1.100".to_owned()));
        }
        let status = if self.held.lock().unwrap().is_slow {
            ProvisioningStatus::PendingCreate
        } else {
            ProvisioningStatus::Active
        };
        self.put(text(&message, "id"), kind, message, status, "", Type::Created)
    }

    pub(super) fn get(&self, kind: Kind, id: &str) -> Result<DynamicMessage, Status> {
        match self.held.lock().unwrap().objects.get(id) {
            Some((found, message)) if *found == kind => Ok(message.clone()),
            _ => Err(Status::not_found(format!("no {} {id}", kind.1))),
        }
    }

    /// All of a kind, in the order of their ids.
    pub(super) fn all(&self, kind: Kind) -> Vec<DynamicMessage> {
        let held = self.held.lock().unwrap();
        held.objects
            .values()
            .filter(|(found, _)| *found == kind)
            .map(|(_, message)| message.clone())
            .collect()
    }

    pub(super) fn list(&self, kind: Kind, request: &DynamicMessage) -> (Vec<DynamicMessage>, String) {
        let mut found = self.all(kind);
        found.retain(|message| matches(kind, message, request));
        let from: usize = text(request, "page_token").parse().unwrap_or(0);
        let size = request.get_field_by_name("page_size").unwrap().as_u32().unwrap() as usize;
        let size = if size == 0 { PAGE } else { size };
        let next = if from + size < found.len() { (from + size).to_string() } else { String::new() };
        (found.into_iter().skip(from).take(size).collect(), next)
    }

    pub(super) fn update(&self, kind: Kind, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
        self.record(request);
        let given = request.get_field_by_name(kind.1).unwrap().as_message().unwrap().clone();
        let mut current = self.get(kind, &text(&given, "id"))?;
        let etag = text(request, "etag");
        if !etag.is_empty() && etag != state(&current).etag {
            return Err(Status::failed_precondition("it was written since it had this etag"));
        }
        let mask = request.get_field_by_name("update_mask").unwrap();
        let paths = mask.as_message().unwrap().get_field_by_name("paths").unwrap().into_owned();
        for path in paths.as_list().unwrap().iter().map(|path| path.as_str().unwrap()) {
            let field = current.descriptor().get_field_by_name(path).unwrap();
            if given.has_field(&field) {
                current.set_field(&field, given.get_field(&field).into_owned());
            } else {
                current.clear_field(&field);
            }
        }
        check(&current)?;
        if flag(request, "validate_only") {
            return Ok(current);
        }
        let status = if self.held.lock().unwrap().is_slow {
            ProvisioningStatus::PendingUpdate
        } else {
            ProvisioningStatus::Active
        };
        bump(&mut current);
        Ok(self.put(text(&current, "id"), kind, current, status, "", Type::Updated))
    }

    pub(super) fn delete(&self, kind: Kind, request: &DynamicMessage) -> Result<DynamicMessage, Status> {
        self.record(request);
        let id = text(request, "id");
        let message = match self.get(kind, &id) {
            Err(_) if flag(request, "allow_missing") => {
                return Ok(DynamicMessage::new(descriptor(&self.schema, kind.0)));
            }
            found => found?,
        };
        let children: Vec<(Kind, String)> = self.children(&id);
        let cascade = flag(request, "cascade");
        if !children.is_empty() && !cascade {
            return Err(Status::failed_precondition("it has children; delete them first, or cascade"));
        }
        if flag(request, "validate_only") {
            return Ok(message);
        }
        for (kind, id) in children {
            for (kind, id) in self.children(&id) {
                self.remove(kind, &id);
            }
            self.remove(kind, &id);
        }
        self.remove(kind, &id);
        Ok(message)
    }

    fn children(&self, id: &str) -> Vec<(Kind, String)> {
        let held = self.held.lock().unwrap();
        let children =
            held.objects.values().filter(|(kind, message)| kind.2.is_some_and(|up| text(message, up) == id));
        children.map(|(kind, message)| (*kind, text(message, "id"))).collect()
    }

    /// Removes an object, or leaves it PENDING_DELETE while writes are held.
    pub(super) fn remove(&self, kind: Kind, id: &str) {
        let message = self.get(kind, id).unwrap();
        if self.held.lock().unwrap().is_slow {
            self.put(id.to_owned(), kind, message, ProvisioningStatus::PendingDelete, "", Type::Updated);
            return;
        }
        self.held.lock().unwrap().objects.remove(id);
        self.emit(Type::Deleted, kind, &message);
    }

    /// Stores an object with its state and notifies the watchers.
    fn put(
        &self,
        id: String,
        kind: Kind,
        mut message: DynamicMessage,
        status: ProvisioningStatus,
        reason: &str,
        event: Type,
    ) -> DynamicMessage {
        let mut new = state(&message);
        new.generation = new.generation.max(1);
        new.provisioning_status = status.into();
        new.operating_status = OperatingStatus::NoMonitor.into();
        new.reason = reason.to_owned();
        new.etag = format!("e{}", new.generation);
        if status == ProvisioningStatus::Active {
            new.observed_generation = new.generation;
        }
        set_state(&mut message, &new);
        self.held.lock().unwrap().objects.insert(id, (kind, message.clone()));
        self.emit(event, kind, &message);
        message
    }

    fn event(&self, r#type: Type, kind: Kind, message: &DynamicMessage) -> WatchEvent {
        let mut event = self.dynamic("WatchEvent", &WatchEvent { r#type: r#type.into(), resource: None });
        event.set_field_by_name(kind.1, Value::Message(message.clone()));
        event.transcode_to().unwrap()
    }

    fn emit(&self, r#type: Type, kind: Kind, message: &DynamicMessage) {
        // Nobody need be listening.
        let _ignored = self.events.send(self.event(r#type, kind, message));
    }

    /// The events from now on, after a snapshot.
    pub(super) fn watch(&self) -> mpsc::Receiver<Result<WatchEvent, Status>> {
        let mut events = self.events.subscribe();
        let mut first: Vec<WatchEvent> = Vec::new();
        for (kind, message) in self.held.lock().unwrap().objects.values() {
            first.push(self.event(Type::Snapshot, *kind, message));
        }
        first.push(WatchEvent { r#type: Type::Synced.into(), resource: None });
        let (sender, receiver) = mpsc::channel(1024);
        tokio::spawn(async move {
            for event in first {
                let _ignored = sender.send(Ok(event)).await;
            }
            while let Ok(event) = events.recv().await {
                if sender.send(Ok(event)).await.is_err() {
                    return;
                }
            }
        });
        self.watches.send_modify(|count| *count += 1);
        receiver
    }
}

/// The only rules of this server: three fields, and one thing that it does not support.
fn check(message: &DynamicMessage) -> Result<(), Status> {
    let mut wrong = Vec::new();
    if message.get_field_by_name("port").is_some_and(|port| port.as_u32() == Some(0)) {
        wrong.push(FieldViolation::new("port", "must be 1 to 65535, given 0"));
    }
    if message.get_field_by_name("weight").is_some_and(|weight| weight.as_u32() > Some(256)) {
        wrong.push(FieldViolation::new("weight", "must be 0 to 256"));
    }
    if text(message, "name").len() > 255 {
        wrong.push(FieldViolation::new("name", "at most 255 characters"));
    }
    if !wrong.is_empty() {
        let mut details = ErrorDetails::new();
        details.set_bad_request(wrong);
        return Err(Status::with_error_details(Code::InvalidArgument, "invalid", details));
    }
    if message.descriptor().name() == "Listener"
        && message.get_field_by_name("protocol").unwrap().as_enum_number() == Some(6)
    {
        return Err(Status::unimplemented("TERMINATED_HTTPS is not supported yet"));
    }
    Ok(())
}

/// True if the List `request` selects the resource.
fn matches(kind: Kind, message: &DynamicMessage, request: &DynamicMessage) -> bool {
    let same = |field: &str| text(request, field).is_empty() || text(request, field) == text(message, field);
    let tags = request.get_field_by_name("tags").unwrap().into_owned();
    let own = message.get_field_by_name("tags").unwrap().into_owned();
    let wanted = request.get_field_by_name("provisioning_status").unwrap().as_enum_number().unwrap();
    same("name")
        && kind.2.is_none_or(same)
        && tags.as_list().unwrap().iter().all(|tag| own.as_list().unwrap().contains(tag))
        && (wanted == 0 || wanted == state(message).provisioning_status)
}

/// A field of text; empty if there is no such field.
fn descriptor(schema: &DescriptorPool, name: &str) -> MessageDescriptor {
    schema.get_message_by_name(&format!("fiberlb.v1.{name}")).unwrap()
}

fn flag(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).is_some_and(|value| value.as_bool().unwrap())
}

pub(super) fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn state(message: &DynamicMessage) -> ResourceState {
    message.get_field_by_name("state").unwrap().as_message().unwrap().transcode_to().unwrap()
}

fn set_state(message: &mut DynamicMessage, state: &ResourceState) {
    message.get_field_by_name_mut("state").unwrap().as_message_mut().unwrap().transcode_from(state).unwrap();
}

fn bump(message: &mut DynamicMessage) {
    let mut state = state(message);
    state.generation += 1;
    set_state(message, &state);
}

/// A node that is drained gets rid of a network whenever it is looked at, but for one that nobody takes over.
pub(super) fn look_at_drain(node: &mut Node) {
    if node.draining && !node.waiting_for.contains("no other node") {
        node.networks = node.networks.saturating_sub(1);
    }
}
