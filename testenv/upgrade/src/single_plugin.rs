//! One plugin on an embedded store, upgraded and taken back, with node agents of both releases.

use anyhow::{Context as _, Result, ensure};

use crate::builds::{Build, Builds};
use crate::checks;
use crate::claims::{UpgradeTest, apply, serves};
use crate::newer_store::refused;
use crate::report::Report;
use crate::site::{Releases, Site};
use crate::trees::small;

/// Proves it.
///
/// # Errors
/// A claim does not hold.
pub(crate) async fn run(report: &mut Report, builds: &Builds) -> Result<()> {
    let releases = Releases { plugins: Build::Old, agents: Build::BOTH, replicated: false };
    let opened = UpgradeTest::open("upgrade-single", builds, releases).await;
    let mut test = report.opened("an old plugin writes a file, and agents of both releases serve", opened)?;
    let proven = Box::pin(claims(&mut test, report)).await;
    test.close(proven.is_err())?;
    proven
}

async fn claims(test: &mut UpgradeTest, report: &mut Report) -> Result<()> {
    second_is_refused(test, report, Build::New).await?;
    let claim =
        "the new plugin is started on the file: all is shown as before, and nothing is written to OVN";
    test.proves(report, claim, async |test| change(test, Build::New, true).await).await?;
    checks::all(test, report, "new plugin on the old one's file").await?;
    second_is_refused(test, report, Build::Old).await?;
    let claim = "going back: the old plugin works on what the new one wrote, or says what to do";
    test.proves(report, claim, async |test| go_back(test).await).await?;
    let claim = "the new plugin is started again after the running one was killed";
    test.proves(report, claim, async |test| change(test, Build::New, false).await).await?;
    let claim = "each release imports what the other one exported";
    test.proves(report, claim, async |test| exports(test).await).await
}

/// Exchanges the plugin, which must change nothing.
async fn change(test: &mut UpgradeTest, build: Build, in_order: bool) -> Result<String> {
    let before = test.snapshot(0).await?;
    test.site.stop_plugin(0, in_order)?;
    test.site.start_plugin(0, build).await?;
    test.is_unchanged(&before, &[0]).await
}

/// Writes by the new plugin what stays, and starts the old one. Where that refuses, it must say what to do.
async fn go_back(test: &mut UpgradeTest) -> Result<String> {
    let id = apply(&test.site, 0, small("written by the new release", test.site.network)).await?;
    serves(&test.site, 0, &id).await?;
    test.ids.push(id);
    let before = test.snapshot(0).await?;
    test.site.stop_plugin(0, true)?;
    let Err(why) = test.site.start_plugin(0, Build::Old).await else {
        return test.is_unchanged(&before, &[0]).await;
    };
    let ended = test.site.plugin_that_ends(Build::Old, &[]).await;
    let said = refused(&ended.with_context(|| format!("it does not start: {why:#}"))?)?;
    test.site.start_plugin(0, Build::New).await?;
    test.is_unchanged(&before, &[0]).await?;
    Ok(format!("refused: {said}"))
}

/// Proves that a second plugin cannot open the file.
async fn second_is_refused(test: &mut UpgradeTest, report: &mut Report, build: Build) -> Result<()> {
    let claim = format!(
        "a second plugin (release: {build}) is refused on the file of the one that runs (release: {})",
        build.other()
    );
    let proof = async |test: &mut UpgradeTest| refused(&test.site.plugin_that_ends(build, &[]).await?);
    test.proves(report, &claim, proof).await
}

/// Exports by each release and imports by the other one, into the same store.
async fn exports(test: &mut UpgradeTest) -> Result<String> {
    let before = test.snapshot(0).await?;
    test.site.stop_plugin(0, true)?;
    for build in Build::BOTH {
        let file = Site::path(&format!("{build}.export"));
        store(test, build, &["store", "export", &file]).await?;
        store(test, build.other(), &["store", "import", "--replace", &file]).await?;
    }
    test.site.start_plugin(0, Build::New).await?;
    test.is_unchanged(&before, &[0]).await
}

async fn store(test: &UpgradeTest, build: Build, words: &[&str]) -> Result<()> {
    let ended = test.site.plugin_that_ends(build, words).await?;
    ensure!(ended.well, "the {build} `fiberlb-plugin {}`: {}", words.join(" "), ended.said);
    Ok(())
}
