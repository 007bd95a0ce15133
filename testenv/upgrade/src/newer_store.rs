//! Stores of a later release: refused with what to do where they cannot be read, and nothing else stops.

use anyhow::{Context as _, Result, ensure};

use crate::builds::{Build, Builds};
use crate::claims::UpgradeTest;
use crate::report::Report;
use crate::site::{Ended, Releases};

/// Version that no release knows yet.
const LATER: &str = r#"{"version":99,"head":1,"plugin":"later","carried":{}}"#;
/// Key of the format of a store in etcd.
const FORMAT: &str = "/fiberlb/chainfire/format";
/// Folders with the records that get a field more.
const EXTENDED: [&str; 9] = [
    "status",
    "loadbalancers",
    "listeners",
    "pools",
    "backends",
    "healthchecks",
    "fleet/nodes",
    "fleet/ports",
    "fleet/proxyports",
];
/// Words of which at least one tells an operator what to do.
const ADVICE: [&str; 6] =
    ["upgrade", "run the newer", "stop the other", "restore", "import an export", "put it right"];

/// Proves it for both releases.
///
/// # Errors
/// A claim does not hold.
pub(crate) async fn run(report: &mut Report, builds: &Builds) -> Result<()> {
    for build in [Build::New, Build::Old] {
        let releases = Releases { plugins: build, agents: Build::BOTH, replicated: true };
        let opened = UpgradeTest::open(&format!("upgrade-refusal-{build}"), builds, releases).await;
        let claim = format!("three {build} plugins on etcd, and agents of both releases serve");
        let mut test = report.opened(&claim, opened)?;
        let proven = Box::pin(claims(&mut test, report, build)).await;
        test.close(proven.is_err())?;
        proven?;
    }
    Ok(())
}

/// The sentence by which a plugin refused to work.
///
/// # Errors
/// It did not refuse, or does not say what to do.
pub(crate) fn refused(ended: &Ended) -> Result<String> {
    ensure!(!ended.well, "it worked, and should have refused to: {}", ended.said);
    let error = ended.said.find("Error: ").and_then(|from| ended.said.get(from..)).unwrap_or_default();
    let words: Vec<&str> = error.split_whitespace().collect();
    let sentence = words.join(" ");
    let advises = ADVICE.iter().any(|words| sentence.contains(words));
    ensure!(advises, "it refused without saying what to do: {}", ended.said);
    Ok(format!("{sentence:?}"))
}

async fn claims(test: &mut UpgradeTest, report: &mut Report, build: Build) -> Result<()> {
    let claim = format!("{build} plugins refuse a store of a later format; traffic goes on without plugins");
    test.proves(report, &claim, async |test| later_format(test, build).await).await?;
    let claim = format!("{build} plugins that start refuse a later record; without it all is as before");
    test.proves(report, &claim, async |test| later_record_at_start(test, build).await).await?;
    let claim = format!("{build} plugins that run ignore a later record, and log what to do");
    test.proves(report, &claim, async |test| later_record_meanwhile(test).await).await?;
    let claim = format!("{build} plugins follow a later leader, and write nothing");
    test.proves(report, &claim, async |test| later_leader(test, build).await).await?;
    let claim = format!("{build} plugins ignore what a later release adds: keys, and fields of records");
    test.proves(report, &claim, async |test| additions(test, build).await).await
}

async fn later_format(test: &mut UpgradeTest, build: Build) -> Result<String> {
    for plugin in 0..test.site.count() {
        test.site.stop_plugin(plugin, true)?;
    }
    let kept = replace(test, FORMAT, LATER).await?;
    let said = refused(&test.site.plugin_that_ends(build, &[]).await?)?;
    replace(test, FORMAT, &kept).await?;
    Ok(said)
}

async fn later_record_at_start(test: &mut UpgradeTest, build: Build) -> Result<String> {
    let key = shop_key(test).await?;
    let kept = replace(test, &key, LATER).await?;
    let said = refused(&test.site.plugin_that_ends(build, &[]).await?)?;
    replace(test, &key, &kept).await?;
    for plugin in 0..test.site.count() {
        test.site.start_plugin(plugin, build).await?;
    }
    test.site.settled().await?;
    test.verified().await?;
    Ok(said)
}

async fn later_record_meanwhile(test: &mut UpgradeTest) -> Result<String> {
    let (before, key) = (test.snapshot(0).await?, shop_key(test).await?);
    let kept = replace(test, &key, LATER).await?;
    for plugin in 0..test.site.count() {
        let advice = async || {
            let log = test.site.log(plugin)?;
            let told = log.lines().any(|line| line.contains(&key) && line.contains("upgrade"));
            ensure!(told, "plugin{plugin} does not log {key} with what to do");
            Ok(())
        };
        test.site.until("what to do in the log", advice).await?;
    }
    let same = test.is_unchanged(&before, &[]).await?;
    replace(test, &key, &kept).await?;
    test.is_unchanged(&before, &[]).await?;
    Ok(same)
}

async fn later_leader(test: &mut UpgradeTest, build: Build) -> Result<String> {
    let before = test.snapshot(0).await?;
    replace(test, "/fiberlb/leader", LATER).await?;
    test.site
        .until("no plugin to lead", async || {
            for plugin in &test.site.plugins {
                ensure!(plugin.metric("fiberlb_leads").await? == 0.0, "one leads");
            }
            Ok(())
        })
        .await?;
    ensure!(
        test.shown(1).await? == test.shown(2).await?,
        "{build} plugins without a leader show different things"
    );
    etcdctl(test, &["del", "/fiberlb/leader"]).await?;
    test.is_unchanged(&before, &[]).await
}

/// Adds a field to one record of each kind, and a key of an unknown kind, and starts a follower on that.
async fn additions(test: &mut UpgradeTest, build: Build) -> Result<String> {
    let (leader, before) = (test.site.leader().await?, test.snapshot(0).await?);
    for folder in EXTENDED {
        let prefix = format!("/fiberlb/{folder}/");
        let keys = etcdctl(test, &["get", "--prefix", "--keys-only", &prefix]).await?;
        let key =
            keys.lines().find(|line| !line.is_empty()).with_context(|| format!("nothing below {prefix}"))?;
        let value = etcdctl(test, &["get", "--print-value-only", key]).await?;
        let later = extended(&value)?;
        etcdctl(test, &["put", key, &later]).await?;
    }
    let unknown = "/fiberlb/later/node0";
    etcdctl(test, &["put", unknown, LATER]).await?;
    let follower = (leader + 1) % test.site.count();
    test.site.change_plugin(follower, build).await?;
    let same = test.is_unchanged(&before, &[follower]).await?;
    etcdctl(test, &["del", unknown]).await?;
    Ok(same)
}

/// A record as a later release may write it: with a field more.
fn extended(value: &str) -> Result<String> {
    let mut value: serde_json::Value = serde_json::from_str(value.trim())?;
    let object = value.as_object_mut().context("it is no object")?;
    object.insert("later".to_owned(), serde_json::json!({ "field": 1 }));
    if let Some(spec) = object.get_mut("spec").and_then(serde_json::Value::as_object_mut) {
        spec.insert("later".to_owned(), serde_json::json!(["field"]));
    }
    Ok(value.to_string())
}

/// Key of the target's own record.
async fn shop_key(test: &UpgradeTest) -> Result<String> {
    let keys = etcdctl(test, &["get", "--prefix", "--keys-only", "/fiberlb/loadbalancers/"]).await?;
    let found = keys.lines().find(|key| key.ends_with(&test.target));
    Ok(found.context("the target has no record")?.to_owned())
}

/// Puts a value in the place of another one, which it gives.
async fn replace(test: &UpgradeTest, key: &str, value: &str) -> Result<String> {
    let kept = etcdctl(test, &["get", "--print-value-only", key]).await?;
    etcdctl(test, &["put", key, value]).await?;
    Ok(kept.trim().to_owned())
}

async fn etcdctl(test: &UpgradeTest, words: &[&str]) -> Result<String> {
    test.site.etcd.as_ref().context("the store is a file")?.ctl(words).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let ended = |well, said: &str| Ended { well, said: said.to_owned() };
        let newer = "log\nError: cannot start\n\nCaused by:\n  0: format version 99: run the newer plugin";
        let said = refused(&ended(false, newer)).unwrap();
        assert!(said.starts_with("\"Error: cannot start") && said.contains("run the newer plugin"), "{said}");
        assert!(refused(&ended(false, "upgrade begun\nError: malformed")).is_err());
        assert!(refused(&ended(true, newer)).is_err());
    }
}
