//! Check of a configuration without a start: settings, and the files that they name.

use fiberlb_daemon::secrets;
use fiberlb_daemon::tls::ClientFiles;

use crate::config::{Config, Overrides};

/// Faults of a configuration, for people; none: an agent can start with it, as far as this machine tells. Nothing is opened but
/// the files that it names.
#[must_use]
pub fn faults(overrides: Overrides) -> Vec<String> {
    let config = match Config::read(overrides) {
        Ok(config) => config,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut faults: Vec<String> = config.faults().iter().map(|error| format!("{error:#}")).collect();
    // Some without the others are a fault of the settings.
    if let Ok(Some(files)) = config.tls() {
        let files = ClientFiles { ca: files.ca, own: Some((files.certificate, files.key)) };
        faults.extend(files.faults().into_iter().map(|fault| format!("plugin.tls_*: {fault}")));
    }
    faults
        .extend(secrets::check_directory(&config.state.dir).err().map(|error| format!("state.dir: {error}")));
    faults
}
