//! The tenant: types `fiberlb` commands and reads what they print.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use fiberlb_lab::workspace_binary;
use tokio::process::Command;

use crate::terminal::Terminal;

/// Someone with the command line client and a folder.
#[derive(Debug)]
pub(crate) struct Tenant {
    binary: PathBuf,
    endpoint: String,
    folder: PathBuf,
}

impl Tenant {
    /// Tenant whose client connects to `endpoint` and runs in `folder`.
    ///
    /// # Errors
    /// The client is not built.
    pub(crate) fn new(endpoint: String, folder: &Path) -> Result<Tenant> {
        Ok(Tenant { binary: workspace_binary("fiberlb")?, endpoint, folder: folder.to_owned() })
    }

    /// The client's binary.
    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// Endpoint of the plugin.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Types a command of words without spaces, shows it with what it prints, and gives what it printed.
    ///
    /// # Errors
    /// It fails: with its exit status, after what it said was shown.
    pub(crate) async fn types(&self, terminal: &Terminal, line: &str) -> Result<String> {
        terminal.typed(line);
        let output = terminal.alive(self.command(line).output()).await.context("cannot run fiberlb")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let printed = text(&output.stdout);
        terminal.quote("", &printed);
        terminal.quote("", &text(&output.stderr));
        if !output.status.success() {
            terminal.check(false, "the command succeeds", &output.status.to_string());
            bail!("`{line}` failed ({})", output.status);
        }
        Ok(printed)
    }

    /// The text at `field` of a load balancer, by `-o json`.
    ///
    /// # Errors
    /// The command fails, or there is no such field in what it prints.
    pub(crate) async fn load_balancer_field(&self, name: &str, field: &str) -> Result<String> {
        let line = format!("fiberlb loadbalancer get {name} -o json");
        let output = self.command(&line).output().await.context("cannot run fiberlb")?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).with_context(said)?;
        let value = find(&json, field).and_then(serde_json::Value::as_str);
        value.map(str::to_owned).with_context(|| format!("`{line}` shows no {field}"))
    }

    /// Runs a command, and returns its output, without showing either.
    ///
    /// # Errors
    /// It fails, with what it said.
    pub(crate) async fn asks(&self, line: &str) -> Result<String> {
        let output = self.command(line).output().await.context("cannot run fiberlb")?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), "`{line}` failed: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(line.split_whitespace().skip(1)).current_dir(&self.folder).kill_on_drop(true);
        // What it prints goes through the terminal, which takes the colours out where they are not wanted.
        command.env("FIBERLB_ENDPOINT", &self.endpoint).env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1");
        command.stdin(Stdio::null());
        command
    }
}

/// The value of the first such key, however deep.
fn find<'a>(json: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match json {
        serde_json::Value::Object(map) => {
            map.get(key).or_else(|| map.values().find_map(|inner| find(inner, key)))
        }
        serde_json::Value::Array(list) => list.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_however_the_answer_is_wrapped() {
        let field = serde_json::json!({ "vip_address": "10.0.0.2" });
        for wrapped in
            [field.clone(), serde_json::json!([field]), serde_json::json!({ "load_balancer": field })]
        {
            assert_eq!(find(&wrapped, "vip_address").unwrap(), "10.0.0.2");
        }
        assert_eq!(find(&field, "name"), None);
    }
}
