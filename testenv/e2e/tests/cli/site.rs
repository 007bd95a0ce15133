//! The world of one test: a lab's central part with a tenant network, and a plugin that has seen it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fiberlb_lab::Lab;
use fiberlb_lab::plugin::Plugin;
use tempfile::TempDir;

use crate::fiberlb::{self, Ran};

/// Far above what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plugin on a lab with the networks `sw0` and, without a subnet, `bare`.
pub(crate) struct Site {
    pub(crate) plugin: Plugin,
    pub(crate) lab: Lab,
    folder: TempDir,
}

impl Site {
    pub(crate) async fn start(name: &str) -> Site {
        let lab = Lab::start(name).await.unwrap();
        lab.add_switch("sw0", &[("subnet", "10.0.0.0/16")]).await.unwrap();
        lab.add_switch("bare", &[]).await.unwrap();
        let folder = TempDir::new().unwrap();
        let binary = Plugin::binary().unwrap();
        let plugin = Plugin::start(&binary, folder.path(), &lab.nb_endpoint(), &[]).await.unwrap();
        let began = Instant::now();
        // Until the database has been seen, a network has no name.
        while plugin.metric("fiberlb_northbound_connected").await.unwrap() < 0.5 {
            assert!(began.elapsed() < PATIENCE, "the plugin does not reach the database");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Site { plugin, lab, folder }
    }

    /// Runs the command with these words.
    pub(crate) async fn run(&self, words: &str) -> Ran {
        fiberlb::run(&self.plugin.url(), &words.split_whitespace().collect::<Vec<_>>()).await
    }

    /// Writes a file, and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Pipes a file into `fiberlb apply -f -`.
    pub(crate) async fn apply(&self, text: &str, more: &[&str]) -> Ran {
        let path = self.file("input", text);
        let args = [&["apply", "-f", "-"], more].concat();
        fiberlb::run_with_input(&self.plugin.url(), &args, &path).await
    }

    /// `vips` of all rows of load balancers, a line each.
    pub(crate) async fn vips(&self) -> String {
        let vips = self
            .lab
            .nbctl(&["--bare", "--columns=vips", "find", "Load_Balancer", "protocol!=[]"])
            .await
            .unwrap();
        vips.trim().to_owned()
    }

    /// Waits until [`Site::vips`] are these.
    pub(crate) async fn until_vips(&self, wanted: &str) {
        let began = Instant::now();
        while self.vips().await != wanted {
            assert!(began.elapsed() < Duration::from_secs(30), "waited in vain for {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
