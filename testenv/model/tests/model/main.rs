//! Random calls of the API by several clients, good ones and bad ones, with plugins that are killed in between. A model, written
//! by the documentation alone, says what each call must answer and what stands afterwards; at the end lists, watches and
//! the northbound database must show just that.
//!
//! `MODEL_SEED` repeats a run, as far as the purge of what was deleted comes at the same moments; `MODEL_CALLS` is the number of
//! calls of each client. `make test-model` makes long runs.

#![cfg(test)]

mod api;
mod applies;
mod client;
mod draw;
mod kinds;
mod mirror;
mod model;
mod plan;
mod rows;
mod shown;
mod site;
mod verdict;

use std::collections::BTreeMap;
use std::time::Instant;

use fastrand::Rng;
use fiberlb_lab::{Version, can_run_with};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use client::{Client, Failure};
use kinds::Kind;
use mirror::Mirror;
use model::{Model, Resource};
use rows::Features;
use shown::{Shown, flat};
use site::{Site, until};

/// Clients at the same time.
const CLIENTS: usize = 4;
/// Calls of each client where nothing else is said.
const CALLS: usize = 300;
/// Parts of a run; after each a plugin is killed.
const PARTS: usize = 3;

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

async fn run(plugins: usize) {
    let seed = from_environment("MODEL_SEED").unwrap_or_else(|| Rng::new().u64(..1 << 32));
    let calls = from_environment("MODEL_CALLS").map_or(CALLS, |calls| usize::try_from(calls).unwrap());
    println!("MODEL_SEED={seed} MODEL_CALLS={calls} repeats this run");
    let mut run = Run::start(plugins, seed).await;
    if let Err(why) = run.all(calls).await {
        panic!("MODEL_SEED={seed} MODEL_CALLS={calls}: {why}");
    }
}

struct Run {
    site: Site,
    mirrors: Vec<Mirror>,
    clients: Vec<Client>,
    /// A tree that nobody changes.
    pinned: Model,
    rng: Rng,
}

impl Run {
    async fn start(plugins: usize, seed: u64) -> Self {
        let site = Site::start(plugins).await;
        let pinned = pinned(&site).await;
        let model = |site: &Site| Model {
            foreign: pinned.resources.keys().cloned().collect(),
            networks: site.networks.clone(),
            owner: pinned.owner.clone(),
            ..Model::default()
        };
        let clients =
            (0..CLIENTS).map(|index| Client::new(index, seed, site.plugins.clone(), model(&site))).collect();
        let mirrors = (0..plugins).map(|index| Mirror::follow(site.plugins.api(index).clone())).collect();
        Self { site, mirrors, clients, pinned, rng: Rng::with_seed(seed) }
    }

    async fn all(&mut self, calls: usize) -> Result<(), Failure> {
        let began = Instant::now();
        for _ in 0..PARTS {
            self.calls(calls / PARTS).await?;
            let victim = self.rng.usize(..self.site.plugins.count());
            self.site.kill(victim);
            if self.site.plugins.count() > 1 {
                self.calls(calls / PARTS / 4).await?;
            }
            self.site.restart(victim).await;
            for client in &mut self.clients {
                let shown = client.check_all().await;
                shown.map_err(|why| client.explained(&format!("after a restart: {why}")))?;
            }
        }
        println!("{}; all calls took {:.1?}", self.summary(), began.elapsed());
        self.settled().await?;
        self.ends().await
    }

    async fn calls(&mut self, calls: usize) -> Result<(), Failure> {
        try_join_all(self.clients.iter_mut().map(|client| client.run(calls))).await.map(drop)
    }

    /// Number of calls by their answers.
    fn summary(&self) -> String {
        let mut codes: BTreeMap<&str, usize> = BTreeMap::new();
        for ((_, code), count) in self.clients.iter().flat_map(|client| &client.answers) {
            *codes.entry(code).or_default() += count;
        }
        let events: Vec<usize> = self.mirrors.iter().map(Mirror::events).collect();
        format!("{} calls: {codes:?}; events of watches: {events:?}", codes.values().sum::<usize>())
    }

    /// Waits until the northbound database, lists and watches of all plugins show what stands.
    async fn settled(&mut self) -> Result<(), Failure> {
        let version = |year, month| fiberlb_ovn_testing::release().ovn() >= Version::new(year, month, 0);
        let features = Features {
            ipv6_selection: version(25, 3),
            affinity: version(22, 12),
            flush: version(23, 3),
            answer_rows: version(24, 9),
        };
        let models: Vec<&Model> =
            self.clients.iter().map(|client| &client.model).chain([&self.pinned]).collect();
        until("the northbound database", async || {
            rows::compare(&self.site.northbound, &self.site.networks, &models, features)
        })
        .await?;
        for (index, mirror) in self.mirrors.iter().enumerate() {
            let api = self.site.plugins.api(index);
            until(&format!("plugin {index}"), async || {
                for kind in Kind::ALL {
                    let listed = listed(api, kind).await?;
                    let watched = mirror.resources(kind)?;
                    if let Some((id, it)) = listed.iter().find(|(id, it)| watched.get(*id) != Some(*it)) {
                        return Err(format!("{id} is {it}, and the watch says {:?}", watched.get(id)));
                    }
                    let standing = models.iter().flat_map(|model| model.alive(kind));
                    let standing: BTreeMap<&String, &Resource> = standing.collect();
                    let is_right = |(id, it): (&String, &Value)| {
                        standing.get(id).is_some_and(|own| own.spec == Shown::of(it).spec)
                    };
                    if listed.len() != standing.len()
                        || watched.len() != standing.len()
                        || !listed.iter().all(is_right)
                    {
                        return Err(format!(
                            "{} of {kind:?} are listed, {} watched, {} stand",
                            listed.len(),
                            watched.len(),
                            standing.len()
                        ));
                    }
                }
                Ok(())
            })
            .await?;
        }
        until("a leader that finds no difference", async || {
            let mut last = Err(String::new());
            for index in 0..self.site.plugins.count() {
                last = verified(self.site.plugins.api(index)).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        })
        .await
    }

    /// Deletes everything; nothing may be left.
    async fn ends(&mut self) -> Result<(), Failure> {
        let api = self.site.plugins.api(0);
        for id in listed(api, Kind::LoadBalancer).await?.keys() {
            let request = json!({"id": id, "cascade": true});
            let deleted = api.call("LoadBalancerService", "DeleteLoadBalancer", &request).await;
            deleted.map_err(|status| status.to_string())?;
        }
        until("the end of all resources", async || {
            for kind in Kind::ALL {
                let left = listed(api, kind).await?;
                if let Some(left) = left.values().next() {
                    return Err(format!("{left} is left"));
                }
            }
            let tables = ["Load_Balancer", "Load_Balancer_Group", "Logical_Router", "Logical_Switch_Port"];
            let rows = tables.iter().flat_map(|table| self.site.northbound.rows(table, &json!([])));
            rows.into_iter().next().map_or(Ok(()), |left| Err(format!("{left} is left")))
        })
        .await
    }
}

/// The plugin finds no difference between the northbound database and what is stored.
async fn verified(api: &api::Api) -> Result<(), Failure> {
    let answer =
        api.call("OvnService", "VerifyOvn", &json!({})).await.map_err(|status| status.to_string())?;
    let is_equal = answer["total"] == 0 && answer["waiting"] == 0;
    is_equal.then_some(()).ok_or_else(|| format!("the plugin says: {answer}"))
}

/// All resources of a kind, page by page.
async fn listed(api: &api::Api, kind: Kind) -> Result<BTreeMap<String, Value>, Failure> {
    let (mut all, mut token) = (BTreeMap::new(), String::new());
    loop {
        let request = json!({"page_token": token});
        let answer = api.call(&kind.service(), &format!("List{}s", kind.name()), &request).await;
        let answer = answer.map_err(|status| status.to_string())?;
        for resource in answer[format!("{}s", kind.field())].as_array().into_iter().flatten() {
            all.insert(resource["id"].as_str().unwrap_or_default().to_owned(), resource.clone());
        }
        token = answer["next_page_token"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Ok(all);
        }
    }
}

/// Makes a tree whose ids the clients try to take.
async fn pinned(site: &Site) -> Model {
    let tree = json!({
        "load_balancer": {"name": "pinned", "network": "sw0", "vip_address": "10.1.250.1"},
        "listeners": [{"protocol": "LISTENER_PROTOCOL_TCP", "port": 80, "default_pool_id": "web"}],
        "pools": [{
            "pool": {"name": "web", "protocol": "POOL_PROTOCOL_TCP"},
            "backends": [{"address": "10.1.250.2", "port": 80}],
            "health_check": {"type": "HEALTH_CHECK_TYPE_TCP", "delay": "1s", "timeout": "0.250s"},
        }],
    });
    let api = site.plugins.api(0);
    let answer = api.call("LoadBalancerService", "ApplyLoadBalancer", &json!({"tree": tree})).await.unwrap();
    let root = answer["tree"]["load_balancer"].clone();
    let text = |field: &str| root[field].as_str().unwrap().to_owned();
    let mut model = Model { owner: (text("org_id"), text("project_id")), ..Model::default() };
    for (kind, Shown { id, spec, generation, etag, is_going, .. }) in flat(&answer["tree"]) {
        let resource = Resource { kind, root: text("id"), spec, generation, etag, going: is_going };
        model.resources.insert(id, resource);
    }
    model
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_plugin_answers_as_the_model_says() {
    run(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_plugins_on_etcd_answer_as_the_model_says() {
    if can_run_with("two_plugins_on_etcd_answer_as_the_model_says", &["etcd", "etcdctl"]) {
        run(2).await;
    }
}
