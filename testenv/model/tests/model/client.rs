//! A client that calls at random and judges every answer by its model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::{Value, json};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::draw::Draw;
use crate::kinds::{Fields, Kind};
use crate::model::{MOST_PAGE, Model, Resource};
use crate::shown::{Shown, flat};
use crate::site::{PATIENCE, Plugins};
use crate::verdict::{Class, Fault, Verdict};

/// Calls that a failure shows.
const SHOWN: usize = 30;
/// Load balancers of a client that stand at the same time, at most but for those of applies.
pub(crate) const ROOTS: usize = 4;

/// Reason why a run fails.
pub(crate) type Failure = String;

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) model: Model,
    pub(crate) rng: Rng,
    plugins: Arc<Plugins>,
    /// Plugin that it calls.
    at: usize,
    log: Vec<String>,
    /// Load balancers that are gone, which another plugin may still show.
    graves: BTreeSet<String>,
    /// Number of answers by method and code.
    pub(crate) answers: BTreeMap<(String, String), usize>,
}

macro_rules! ensure {
    ($holds:expr, $($why:tt)*) => {
        if !$holds {
            return Err(format!($($why)*));
        }
    };
}
pub(crate) use ensure;

impl Client {
    pub(crate) fn new(index: usize, seed: u64, plugins: Arc<Plugins>, model: Model) -> Self {
        let rng = Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(index as u64));
        let at = index % plugins.count();
        Self {
            index,
            model,
            rng,
            plugins,
            at,
            log: Vec::new(),
            graves: BTreeSet::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Makes so many calls.
    ///
    /// # Errors
    /// The first wrong answer, with the calls that matter.
    pub(crate) async fn run(&mut self, calls: usize) -> Result<(), Failure> {
        for _ in 0..calls {
            if let Err(why) = self.step().await {
                return Err(self.explained(&why));
            }
        }
        Ok(())
    }

    /// A failure with the newest calls, those first that name what the last one names.
    pub(crate) fn explained(&self, why: &str) -> String {
        let last = self.log.last().map(String::as_str).unwrap_or_default();
        let ids: Vec<&str> = last.split('"').filter(|word| Uuid::parse_str(word).is_ok()).collect();
        let roots: Vec<&str> =
            ids.iter().filter_map(|id| self.model.resources.get(*id)).map(|it| it.root.as_str()).collect();
        let related = self.log.iter().filter(|line| ids.iter().chain(&roots).any(|id| line.contains(id)));
        let mut lines: Vec<&String> = related.collect();
        if lines.is_empty() {
            lines = self.log.iter().collect();
        }
        let from = lines.len().saturating_sub(SHOWN);
        let lines = lines[from..].iter().map(|line| format!("  {}\n", shortened(line))).collect::<String>();
        format!(
            "client {}: {why}\nits calls that name the same ids, the last {SHOWN} of them:\n{lines}",
            self.index
        )
    }

    async fn step(&mut self) -> Result<(), Failure> {
        if self.plugins.is_down(self.at) || self.rng.u8(..) < 3 && self.plugins.count() > 1 {
            self.move_on().await?;
        }
        match self.rng.u8(0..100) {
            0..28 => self.create().await,
            28..50 => self.update().await,
            50..58 => self.delete().await,
            58..74 => self.apply().await,
            74..82 => self.get().await,
            82..89 => self.list().await,
            89..95 => self.tree().await,
            _ => self.repeat().await,
        }
    }

    /// Goes to another plugin, once that shows all that this client has written.
    async fn move_on(&mut self) -> Result<(), Failure> {
        let others: Vec<usize> = (0..self.plugins.count()).filter(|at| !self.plugins.is_down(*at)).collect();
        self.at = others[self.rng.usize(..others.len())];
        let began = Instant::now();
        while let Err(why) = self.check_all().await {
            ensure!(began.elapsed() < PATIENCE, "plugin {} does not show what was written: {why}", self.at);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Compares all trees with the model.
    pub(crate) async fn check_all(&mut self) -> Result<(), Failure> {
        let roots: Vec<(String, bool)> = self
            .model
            .resources
            .iter()
            .filter(|(_, it)| it.kind == Kind::LoadBalancer)
            .map(|(id, it)| (id.clone(), it.going))
            .collect();
        for (root, is_going) in roots {
            if is_going {
                let shown = self.call("LoadBalancerService", "GetLoadBalancer", json!({"id": root})).await;
                ensure!(shown.is_err() || Shown::of(&shown.unwrap()).is_going, "{root} is not being deleted");
            } else {
                self.check_tree(&root).await?;
            }
        }
        for root in self.graves.clone() {
            let shown = self.call("LoadBalancerService", "GetLoadBalancer", json!({"id": root})).await;
            ensure!(shown.is_err_and(|status| status.code() == Code::NotFound), "{root} is still there");
        }
        self.graves.clear();
        Ok(())
    }

    pub(crate) async fn call(
        &mut self,
        service: &str,
        method: &str,
        request: Value,
    ) -> Result<Value, Status> {
        let answer = self.plugins.api(self.at).call(service, method, &request).await;
        let (code, text) = match &answer {
            Ok(answer) => (Code::Ok, answer.get("id").map_or_else(String::new, Value::to_string)),
            Err(status) => (status.code(), status.message().to_owned()),
        };
        self.log.push(format!("plugin {}: {method} {request} -> {code:?} {text}", self.at));
        *self.answers.entry((method.to_owned(), format!("{code:?}"))).or_default() += 1;
        answer
    }

    /// Judges an answer; `None`: refused, and rightly.
    pub(crate) fn judge(
        &self,
        verdict: &Verdict,
        answer: Result<Value, Status>,
    ) -> Result<Option<Value>, Failure> {
        match answer {
            Ok(_) if verdict.must_fail() => Err(format!("OK, and it had to be refused: {verdict:?}")),
            Ok(answer) => Ok(Some(answer)),
            Err(refused) => match verdict.judge(&refused) {
                Ok(()) => Ok(None),
                Err(why) => Err(format!("{:?}: {why}; {verdict:?}", refused.code())),
            },
        }
    }

    pub(crate) fn draw(&mut self) -> Draw<'_> {
        Draw { rng: &mut self.rng, model: &self.model, client: self.index }
    }

    pub(crate) fn one_in(&mut self, number: usize) -> bool {
        self.rng.usize(..number) == 0
    }

    // Calls ------------------------------------------------------------------------------------------------------------

    async fn create(&mut self) -> Result<(), Failure> {
        let roots = self.model.alive(Kind::LoadBalancer).count();
        let kind = match self.rng.u8(0..20) {
            _ if roots == 0 => Kind::LoadBalancer,
            0..2 if roots < ROOTS => Kind::LoadBalancer,
            2..7 => Kind::Listener,
            7..10 => Kind::Pool,
            10..12 => Kind::HealthCheck,
            _ => Kind::Backend,
        };
        let mut message = self.draw().message(kind);
        self.draw().place(kind, &mut message);
        if self.model.is_repeat(kind, &message) {
            // By chance: what it must answer is judged by `repeat`.
            message.remove("id");
        }
        let request_id = match self.rng.u8(0..40) {
            0..8 => format!("c{}:{}", self.index, self.rng.u64(..)),
            8 => "a b".to_owned(),
            9 => "x".repeat(129),
            10..12 => self.model.requests.keys().next().cloned().unwrap_or_default(),
            _ => String::new(),
        };
        let mut verdict = self.model.create(kind, &message);
        if request_id.contains(' ') || request_id.len() > 128 {
            verdict.sure.push(Fault::new(Class::Invalid, "", "request_id"));
        }
        if let Some((_, _, made)) = self.model.requests.get(&request_id) {
            let fault = Fault::new(Class::Taken, "", "request_id");
            // Without a parent nobody knows in whose name space it is.
            let place = kind.parent_field().map_or(vec!["org_id", "project_id"], |parent| vec![parent]);
            let has_parent = !verdict.sure.iter().any(|fault| place.iter().any(|field| fault.is_at(field)));
            let is_sure = !self.model.resources[made].going && verdict.codes.is_empty() && has_parent;
            if is_sure { verdict.sure.push(fault) } else { verdict.maybe.push(fault) }
        }
        self.created(kind, message, request_id, &verdict).await
    }

    async fn created(
        &mut self,
        kind: Kind,
        message: Fields,
        request_id: String,
        verdict: &Verdict,
    ) -> Result<(), Failure> {
        let request = json!({kind.field(): message, "request_id": request_id});
        let answer = self.call(&kind.service(), &format!("Create{}", kind.name()), request).await;
        let Some(answer) = self.judge(verdict, answer)? else { return Ok(()) };
        let shown = Shown::of(&answer);
        let mut expected = self.model.made_of(kind, &message);
        self.chosen(kind, &mut expected, &shown.spec)?;
        ensure!(shown.spec == expected, "made {} and not {}", text(&shown.spec), text(&expected));
        ensure!(
            shown.generation == 1 && !shown.etag.is_empty() && !shown.is_going,
            "state of a new resource: {answer}"
        );
        let id = message.get("id").and_then(Value::as_str).unwrap_or_default();
        ensure!(id.is_empty() || id == shown.id, "id {id} was asked for, given {}", shown.id);
        ensure!(Uuid::parse_str(&shown.id).is_ok(), "id {}", shown.id);
        self.make_room(kind, &shown);
        let root = match kind {
            Kind::LoadBalancer => shown.id.clone(),
            _ => self.model.resources[expected[kind.parent_field().unwrap()].as_str().unwrap()].root.clone(),
        };
        if !request_id.is_empty() {
            self.model.requests.insert(request_id, (kind, Value::Object(message), shown.id.clone()));
        }
        self.insert(kind, root, shown);
        Ok(())
    }

    pub(crate) fn insert(&mut self, kind: Kind, root: String, shown: Shown) {
        let Shown { id, spec, generation, etag, is_going, .. } = shown;
        self.graves.remove(&id);
        self.model.resources.insert(id, Resource { kind, root, spec, generation, etag, going: is_going });
    }

    /// Takes note that those which were being deleted and had what a new resource has are gone.
    pub(crate) fn make_room(&mut self, kind: Kind, new: &Shown) {
        let has = |it: &Resource| match kind {
            Kind::LoadBalancer => {
                let new = Resource {
                    kind,
                    root: String::new(),
                    spec: new.spec.clone(),
                    generation: 0,
                    etag: String::new(),
                    going: false,
                };
                it.spec["network"] == new.spec["network"]
                    && it.vips().iter().any(|vip| new.vips().contains(vip))
            }
            Kind::Listener => {
                it.parent() == new.spec["load_balancer_id"].as_str()
                    && crate::model::transport(&it.spec) == crate::model::transport(&new.spec)
                    && it.spec["port"] == new.spec["port"]
            }
            Kind::Pool => false,
            Kind::Backend => {
                ["pool_id", "address", "port"].iter().all(|field| it.spec[*field] == new.spec[*field])
            }
            Kind::HealthCheck => it.spec["pool_id"] == new.spec["pool_id"],
        };
        let old = self
            .model
            .resources
            .iter()
            .filter(|(id, it)| it.going && (**id == new.id || it.kind == kind && has(it)));
        for id in old.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        if self.model.resources.get(id).is_some_and(|it| it.kind == Kind::LoadBalancer) {
            self.graves.insert(id.to_owned());
        }
        self.model.gone(id);
    }

    /// Takes over addresses that were chosen, and checks them.
    pub(crate) fn chosen(&self, kind: Kind, expected: &mut Fields, shown: &Fields) -> Result<(), Failure> {
        if kind != Kind::LoadBalancer {
            return Ok(());
        }
        let network = self.model.networks.iter().find(|network| expected["network"] == network.id.as_str());
        let network = network.ok_or("a load balancer on no network")?;
        let check = |address: &Value, is_v4: bool| {
            let text = address.as_str().unwrap_or_default();
            let prefix = if is_v4 { network.prefix } else { "fd02::" };
            ensure!(
                text.starts_with(prefix) && text.contains('.') == is_v4,
                "chose {text} on {}",
                network.name
            );
            let taken = self.model.alive(Kind::LoadBalancer).any(|(_, it)| {
                it.spec["network"] == network.id.as_str()
                    && it.vips().iter().any(|vip| vip.to_string() == text)
            });
            ensure!(!taken, "chose {text}, which is a VIP already");
            Ok(())
        };
        let more = expected["additional_vips"].as_array().is_some_and(|more| !more.is_empty());
        if expected["vip_address"] == "" {
            let other = expected["additional_vips"][0]["address"].as_str().unwrap_or_default();
            check(&shown["vip_address"], !other.contains('.'))?;
            expected.insert("vip_address".to_owned(), shown["vip_address"].clone());
        }
        if more && expected["additional_vips"][0]["address"] == "" {
            let main = shown["vip_address"].as_str().unwrap_or_default();
            check(&shown["additional_vips"][0]["address"], !main.contains('.'))?;
            expected["additional_vips"][0]["address"] = shown["additional_vips"][0]["address"].clone();
        }
        Ok(())
    }

    /// Repeats a create, by its request id or by the id that was chosen.
    async fn repeat(&mut self) -> Result<(), Failure> {
        let requests: Vec<_> = self
            .model
            .requests
            .iter()
            .filter(|(_, (_, _, made))| !self.model.resources[made].going)
            .collect();
        if requests.is_empty() {
            return self.get().await;
        }
        let (request_id, (kind, message, made)) = requests[self.rng.usize(..requests.len())];
        let (request_id, kind, message, made) = (request_id.clone(), *kind, message.clone(), made.clone());
        let request = json!({kind.field(): message, "request_id": request_id});
        let answer = self.call(&kind.service(), &format!("Create{}", kind.name()), request).await;
        let answer = self.judge(&Verdict::default(), answer)?.ok_or("a repeat was refused")?;
        ensure!(answer["id"] == made.as_str(), "a repeat made {}, and not {made}", answer["id"]);
        self.check(&Shown::of(&answer))?;
        let mut by_id = message.as_object().cloned().unwrap();
        by_id.insert("id".to_owned(), made.clone().into());
        let is_same = self.model.is_repeat(kind, &by_id);
        let verdict = if is_same { Verdict::default() } else { self.model.create(kind, &by_id) };
        let request = json!({kind.field(): by_id});
        let answer = self.call(&kind.service(), &format!("Create{}", kind.name()), request).await;
        let Some(answer) = self.judge(&verdict, answer)? else { return Ok(()) };
        self.check(&Shown::of(&answer))
    }

    async fn update(&mut self) -> Result<(), Failure> {
        let (kind, id) = self.draw().target();
        let (message, mask) = self.draw().change(kind, &id);
        let current = self.model.resources.get(&id).map(|it| it.etag.clone()).unwrap_or_default();
        let etag = match self.rng.u8(0..20) {
            0..4 => current,
            4 => "stale".to_owned(),
            _ => String::new(),
        };
        let (verdict, after) = self.model.update(kind, &id, &message, mask.as_deref(), &etag);
        let mut given = message;
        given.insert("id".to_owned(), id.clone().into());
        let mut request = json!({kind.field(): given, "etag": etag});
        if let Some(mask) = &mask {
            request["update_mask"] = mask.iter().map(|path| camel(path)).collect::<Vec<_>>().join(",").into();
        }
        let answer = self.call(&kind.service(), &format!("Update{}", kind.name()), request).await;
        let Some(answer) = self.judge(&verdict, answer)? else {
            self.maybe_gone(&id, &verdict);
            return Ok(());
        };
        self.changed(&id, after.unwrap(), &Shown::of(&answer))
    }

    /// Takes over a change.
    pub(crate) fn changed(&mut self, id: &str, after: Fields, shown: &Shown) -> Result<(), Failure> {
        let resource = self.model.resources.get_mut(id).unwrap();
        ensure!(shown.spec == after, "is {} and not {}", text(&shown.spec), text(&after));
        let is_changed = resource.spec != after;
        let generation = resource.generation + u64::from(is_changed);
        ensure!(shown.generation == generation, "generation {}, not {generation}", shown.generation);
        ensure!(
            (shown.etag != resource.etag) == is_changed,
            "changed: {is_changed}; etag {}, before {}",
            shown.etag,
            resource.etag
        );
        resource.spec = after;
        (resource.generation, resource.etag) = (generation, shown.etag.clone());
        Ok(())
    }

    async fn delete(&mut self) -> Result<(), Failure> {
        let (kind, id) = self.draw().target();
        let current = self.model.resources.get(&id).map(|it| it.etag.clone()).unwrap_or_default();
        let etag = match self.rng.u8(0..20) {
            0..4 => current,
            4 => "stale".to_owned(),
            _ => String::new(),
        };
        let cascade = self.rng.bool();
        let is_parent = matches!(kind, Kind::LoadBalancer | Kind::Pool);
        let verdict = self.model.delete_verdict(kind, &id, &etag, is_parent && cascade);
        let mut request = json!({"id": id, "etag": etag});
        if is_parent {
            request["cascade"] = cascade.into();
        }
        let answer = self.call(&kind.service(), &format!("Delete{}", kind.name()), request).await;
        let Some(answer) = self.judge(&verdict, answer)? else {
            self.maybe_gone(&id, &verdict);
            return Ok(());
        };
        let shown = Shown::of(&answer);
        ensure!(shown.is_going && shown.id == id, "the answer of a delete: {answer}");
        self.model.delete(&id);
        Ok(())
    }

    /// Takes note of what was going, and is not found.
    fn maybe_gone(&mut self, id: &str, verdict: &Verdict) {
        let is_going = self.model.resources.get(id).is_some_and(|it| it.going);
        let is_missing = self.log.last().is_some_and(|line| line.contains("-> NotFound"));
        if is_going && is_missing && verdict.maybe_codes.contains(&(Code::NotFound as i32)) {
            self.forget(id);
        }
    }

    async fn get(&mut self) -> Result<(), Failure> {
        let (kind, id) = self.draw().target();
        let mut verdict = Verdict::default();
        self.model.lookup(kind, &id, &mut verdict);
        let answer = self.call(&kind.service(), &format!("Get{}", kind.name()), json!({"id": id})).await;
        let Some(answer) = self.judge(&verdict, answer)? else {
            self.maybe_gone(&id, &verdict);
            return Ok(());
        };
        self.check(&Shown::of(&answer))
    }

    /// Compares what is shown of a resource with the model.
    fn check(&self, shown: &Shown) -> Result<(), Failure> {
        let Some(resource) = self.model.resources.get(&shown.id) else {
            ensure!(shown.is_going, "{} is shown, and is not there: {:?}", shown.id, shown.spec);
            return Ok(());
        };
        ensure!(shown.is_going == resource.going, "{}: being deleted: {}", shown.id, shown.is_going);
        ensure!(
            shown.spec == resource.spec,
            "{} is {} and not {}",
            shown.id,
            text(&shown.spec),
            text(&resource.spec)
        );
        let is_same = shown.etag == resource.etag && shown.generation == resource.generation;
        ensure!(
            resource.going || is_same,
            "{}: etag {} and generation {}, not {resource:?}",
            shown.id,
            shown.etag,
            shown.generation
        );
        Ok(())
    }

    async fn list(&mut self) -> Result<(), Failure> {
        let kind = self.rng.choice(Kind::ALL).unwrap();
        let mut request = self.draw().query(kind);
        let is_wrong = request.get("wrong").and_then(Value::as_str).map(str::to_owned);
        request.as_object_mut().unwrap().remove("wrong");
        let size = request["page_size"].as_u64().unwrap_or_default() as usize;
        let most = if size == 0 { 5 } else { size.min(MOST_PAGE) };
        let mut found: Vec<Shown> = Vec::new();
        loop {
            let answer = self.call(&kind.service(), &format!("List{}s", kind.name()), request.clone()).await;
            let mut verdict = Verdict::default();
            verdict.sure.extend(is_wrong.iter().map(|field| Fault::new(Class::Invalid, "", field)));
            let parent = kind.parent_field().and_then(|field| request[field].as_str());
            if let Some((kind, id)) = kind.parent().zip(parent.filter(|parent| !parent.is_empty())) {
                self.model.lookup(kind, id, &mut verdict);
            }
            let Some(answer) = self.judge(&verdict, answer)? else {
                let parent = parent.unwrap_or_default().to_owned();
                self.maybe_gone(&parent, &verdict);
                return Ok(());
            };
            let page = answer[format!("{}s", kind.field())].as_array().cloned().unwrap_or_default();
            ensure!(page.len() <= most, "{} on a page of {most}", page.len());
            for shown in page.iter().map(Shown::of) {
                ensure!(found.last().is_none_or(|last| last.id < shown.id), "{} is out of order", shown.id);
                found.push(shown);
            }
            match answer["next_page_token"].as_str() {
                Some(next) if !next.is_empty() => request["page_token"] = next.into(),
                _ => break,
            }
        }
        let wants = |spec: &Fields| {
            let given =
                |field: &str| request[field].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            let tags = request["tags"].as_array().cloned().unwrap_or_default();
            given("name").is_none_or(|name| spec["name"] == name)
                && tags.iter().all(|tag| spec["tags"].as_array().is_some_and(|tags| tags.contains(tag)))
                && kind
                    .parent_field()
                    .and_then(|field| Some((field, given(field)?)))
                    .is_none_or(|(field, parent)| spec[field] == parent)
        };
        for shown in &found {
            ensure!(wants(&shown.spec), "{} is not asked for", shown.id);
            if self.model.resources.contains_key(&shown.id) {
                self.check(shown)?;
            }
        }
        let has_status = request.get("provisioning_status").is_some();
        for (id, it) in self.model.alive(kind).filter(|(_, it)| !has_status && wants(&it.spec)) {
            ensure!(found.iter().any(|shown| shown.id == *id), "{id} is missing: {:?}", it.spec);
        }
        Ok(())
    }

    async fn tree(&mut self) -> Result<(), Failure> {
        let roots: Vec<String> = self.model.alive(Kind::LoadBalancer).map(|(id, _)| id.clone()).collect();
        if roots.is_empty() || self.one_in(10) {
            let request = json!({"load_balancer_id": Uuid::from_u128(self.rng.u128(..)).to_string()});
            let answer = self.call("LoadBalancerService", "GetStatusTree", request).await;
            ensure!(answer.is_err_and(|status| status.code() == Code::NotFound), "a tree that is not there");
            return Ok(());
        }
        let root = roots[self.rng.usize(..roots.len())].clone();
        self.check_tree(&root).await.map(drop)
    }

    /// Compares a tree with the model; answers with its etag.
    pub(crate) async fn check_tree(&mut self, root: &str) -> Result<String, Failure> {
        let request = json!({"load_balancer_id": root});
        let tree = self.call("LoadBalancerService", "GetStatusTree", request).await;
        let tree = tree.map_err(|status| format!("{root}: {status}"))?;
        self.check_shown_tree(root, &tree)?;
        Ok(tree["etag"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn check_shown_tree(&mut self, root: &str, tree: &Value) -> Result<(), Failure> {
        let shown = flat(tree);
        for (_, shown) in &shown {
            self.check(shown)?;
        }
        let missing: Vec<(String, bool)> = self
            .model
            .resources
            .iter()
            .filter(|(id, it)| it.root == root && !shown.iter().any(|(_, shown)| shown.id == **id))
            .map(|(id, it)| (id.clone(), it.going))
            .collect();
        for (id, is_going) in missing {
            ensure!(is_going, "{id} is missing in the tree {root}");
            self.forget(&id);
        }
        Ok(())
    }
}

/// A line with runs of one character as the tables of values write them.
fn shortened(line: &str) -> String {
    let (mut short, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        let after = rest.trim_start_matches(first);
        let count = (rest.len() - after.len()) / first.len_utf8();
        short += &if count > 16 { format!("{first}*{count}") } else { first.to_string().repeat(count) };
        rest = after;
    }
    short
}

pub(crate) fn text(fields: &Fields) -> String {
    Value::Object(fields.clone()).to_string()
}

/// A path of a mask as JSON writes it.
fn camel(path: &str) -> String {
    let mut parts = path.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (head, rest) = part.split_at(part.len().min(1));
        text + &head.to_uppercase() + rest
    })
}
