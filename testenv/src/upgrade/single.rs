//! One plugin on an embedded store, upgraded and taken back, with node agents of both releases.

use anyhow::{Context as _, Result, ensure};

use crate::upgrade::builds::{Build, Builds};
use crate::upgrade::checks;
use crate::upgrade::refusal::refused;
use crate::upgrade::report::Report;
use crate::upgrade::site::{Cast, Site};
use crate::upgrade::stage::{Stage, apply, serves};
use crate::upgrade::trees::small;

/// Proves it.
///
/// # Errors
/// A claim does not hold.
pub async fn run(report: &mut Report, builds: &Builds) -> Result<()> {
    let cast = Cast { plugins: Build::Old, agents: Build::BOTH, replicated: false };
    let opened = Stage::open("upgrade-single", builds, cast).await;
    let mut stage =
        report.opened("an old plugin writes a file, and agents of both releases serve", opened)?;
    let proven = Box::pin(claims(&mut stage, report)).await;
    stage.close(proven.is_err())?;
    proven
}

async fn claims(stage: &mut Stage, report: &mut Report) -> Result<()> {
    second_is_refused(stage, report, Build::New).await?;
    let claim =
        "the new plugin is started on the file: all is shown as before, and nothing is written to OVN";
    stage.proves(report, claim, async |stage| change(stage, Build::New, true).await).await?;
    checks::all(stage, report, "new plugin on the old one's file").await?;
    second_is_refused(stage, report, Build::Old).await?;
    let claim = "going back: the old plugin works on what the new one wrote, or says what to do";
    stage.proves(report, claim, async |stage| go_back(stage).await).await?;
    let claim = "the new plugin is started again after the running one was killed";
    stage.proves(report, claim, async |stage| change(stage, Build::New, false).await).await?;
    let claim = "each release imports what the other one exported";
    stage.proves(report, claim, async |stage| exports(stage).await).await
}

/// Exchanges the plugin, which must change nothing.
async fn change(stage: &mut Stage, build: Build, in_order: bool) -> Result<String> {
    let before = stage.snapshot(0).await?;
    stage.site.stop_plugin(0, in_order)?;
    stage.site.start_plugin(0, build).await?;
    stage.is_unchanged(&before, &[0]).await
}

/// Writes by the new plugin what stays, and starts the old one. Where that refuses, it must say what to do.
async fn go_back(stage: &mut Stage) -> Result<String> {
    let id = apply(&stage.site, 0, small("written by the new release", stage.site.network)).await?;
    serves(&stage.site, 0, &id).await?;
    stage.ids.push(id);
    let before = stage.snapshot(0).await?;
    stage.site.stop_plugin(0, true)?;
    let Err(why) = stage.site.start_plugin(0, Build::Old).await else {
        return stage.is_unchanged(&before, &[0]).await;
    };
    let ended = stage.site.plugin_that_ends(Build::Old, &[]).await;
    let said = refused(&ended.with_context(|| format!("it does not start: {why:#}"))?)?;
    stage.site.start_plugin(0, Build::New).await?;
    stage.is_unchanged(&before, &[0]).await?;
    Ok(format!("refused: {said}"))
}

/// Proves that a second plugin cannot open the file.
async fn second_is_refused(stage: &mut Stage, report: &mut Report, build: Build) -> Result<()> {
    let claim = format!(
        "a second plugin (release: {build}) is refused on the file of the one that runs (release: {})",
        build.other()
    );
    let proof = async |stage: &mut Stage| refused(&stage.site.plugin_that_ends(build, &[]).await?);
    stage.proves(report, &claim, proof).await
}

/// Exports by each release and imports by the other one, into the same store.
async fn exports(stage: &mut Stage) -> Result<String> {
    let before = stage.snapshot(0).await?;
    stage.site.stop_plugin(0, true)?;
    for build in Build::BOTH {
        let file = Site::path(&format!("{build}.export"));
        store(stage, build, &["store", "export", &file]).await?;
        store(stage, build.other(), &["store", "import", "--replace", &file]).await?;
    }
    stage.site.start_plugin(0, Build::New).await?;
    stage.is_unchanged(&before, &[0]).await
}

async fn store(stage: &Stage, build: Build, words: &[&str]) -> Result<()> {
    let ended = stage.site.plugin_that_ends(build, words).await?;
    ensure!(ended.well, "the {build} `fiberlb-plugin {}`: {}", words.join(" "), ended.said);
    Ok(())
}
