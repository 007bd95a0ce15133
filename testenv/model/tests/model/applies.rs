//! Applies of whole trees by a client.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tonic::Code;

use crate::client::{Client, Failure, ROOTS, ensure, text};
use crate::kinds::{Fields, Kind};
use crate::plan::{Entry, Plan};
use crate::shown::{Shown, flat};

impl Client {
    pub(crate) async fn apply(&mut self) -> Result<(), Failure> {
        let roots: Vec<String> = self.model.alive(Kind::LoadBalancer).map(|(id, _)| id.clone()).collect();
        let root = roots.get(self.rng.usize(..roots.len().max(ROOTS / 2))).cloned();
        let tree = self.draw().tree(root.as_deref());
        let target = tree["load_balancer"]["id"].as_str().map(str::to_owned);
        let mut etag = String::new();
        let (mut verdict, plan) = self.model.apply(&tree, "");
        match self.rng.u8(0..20) {
            0..4 => {
                // Of the tree, as it is now.
                if let Some(root) = target.filter(|id| plan.root.as_ref() == Some(id)) {
                    etag = self.check_tree(&root).await?;
                    verdict = self.model.apply(&tree, "").0;
                    if self.model.resources.values().any(|it| it.root == root && it.going) {
                        verdict.may_refuse(Code::FailedPrecondition);
                    }
                }
            }
            4..7 => {
                if let Some(root) = &plan.root {
                    etag = self.model.resources[root].etag.clone();
                }
            }
            7 => {
                etag = "stale".to_owned();
                verdict.refuse(Code::FailedPrecondition);
            }
            _ => {}
        }
        let dry_run = self.one_in(8);
        let request = json!({"tree": tree, "etag": etag, "validate_only": dry_run});
        let answer = self.call("LoadBalancerService", "ApplyLoadBalancer", request).await;
        let Some(answer) = self.judge(&verdict, answer)? else { return Ok(()) };
        self.applied(&plan, &answer, dry_run)
    }

    /// Takes over a tree that was applied.
    fn applied(&mut self, plan: &Plan, answer: &Value, dry_run: bool) -> Result<(), Failure> {
        let shown = flat(&answer["tree"]);
        let root = answer["tree"]["load_balancer"]["id"].as_str().unwrap_or_default().to_owned();
        let mut ids: BTreeMap<String, String> = BTreeMap::new();
        let (mut created, mut updated, mut unchanged) = (0, 0, 0);
        for entry in &plan.entries {
            let found =
                find(entry, &ids, &shown).ok_or_else(|| format!("{} is not in the answer", entry.at))?;
            ids.insert(entry.key().to_owned(), found.id.clone());
            let mut expected = entry.resolved(&ids);
            self.chosen(entry.kind, &mut expected, &found.spec)?;
            ensure!(
                found.spec == expected,
                "{}: is {} and not {}",
                entry.at,
                text(&found.spec),
                text(&expected)
            );
            if entry.is_new {
                created += 1;
                ensure!(found.generation == 1, "{}: generation {}", entry.at, found.generation);
            } else if self.model.resources[&found.id].spec == expected {
                unchanged += 1;
            } else {
                updated += 1;
            }
            if dry_run {
                continue;
            }
            if entry.is_new {
                let shown = Shown {
                    id: found.id.clone(),
                    spec: expected,
                    created_at: found.created_at.clone(),
                    generation: 1,
                    etag: found.etag.clone(),
                    is_going: false,
                };
                self.make_room(entry.kind, &shown);
                self.insert(entry.kind, root.clone(), shown);
            } else {
                self.changed(&found.id.clone(), expected, found)?;
            }
        }
        let counts = ["created", "updated", "deleted", "unchanged"]
            .map(|field| answer[field].as_u64().unwrap_or_default() as usize);
        let expected = [created, updated, plan.dropped.len(), unchanged];
        ensure!(counts == expected, "created, updated, deleted, unchanged: {counts:?}, not {expected:?}");
        if dry_run {
            return Ok(());
        }
        for id in &plan.dropped {
            self.model.delete(id);
        }
        self.check_shown_tree(&root, &answer["tree"])
    }
}

/// Resource that an entry of an applied tree has become.
fn find<'a>(entry: &Entry, ids: &BTreeMap<String, String>, shown: &'a [(Kind, Shown)]) -> Option<&'a Shown> {
    let expected = entry.resolved(ids);
    let is_same = |spec: &Fields| match entry.kind {
        Kind::LoadBalancer => true,
        Kind::Listener => ["protocol", "port"].iter().all(|field| spec.get(*field) == expected.get(*field)),
        Kind::Pool => spec.get("name") == expected.get("name"),
        Kind::Backend => {
            ["pool_id", "address", "port"].iter().all(|field| spec.get(*field) == expected.get(*field))
        }
        Kind::HealthCheck => spec.get("pool_id") == expected.get("pool_id"),
    };
    let mut kin = shown.iter().filter(|(kind, it)| *kind == entry.kind && !it.is_going);
    kin.find(|(_, it)| entry.id.as_ref().map_or_else(|| is_same(&it.spec), |id| *id == it.id))
        .map(|(_, it)| it)
}
