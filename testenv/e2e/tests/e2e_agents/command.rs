//! The operators' command.

use std::process::Stdio;

use fiberlb_lab::workspace_binary;
use tokio::process::Command;

use crate::site::Site;

/// Result of a run of the command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, if it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// `fiberlb` with these words, for the plugin of a site.
pub(crate) fn fiberlb(site: &Site, words: &str) -> impl Future<Output = Ran> + Send + 'static {
    let mut command = Command::new(workspace_binary("fiberlb").unwrap());
    command.env_clear().env("FIBERLB_ENDPOINT", site.tenant.plugin.url()).args(words.split_whitespace());
    command.stdin(Stdio::null()).kill_on_drop(true);
    async move {
        let output = command.output().await.unwrap();
        Ran {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
