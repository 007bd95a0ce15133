//! Check of a configuration without a start: settings, and the files that they name.

use std::path::Path;

use fiberlb_daemon::secrets;
use fiberlb_daemon::tls::{ClientFiles, Files};

use super::cluster_credentials;
use crate::agents;
use crate::config::{Config, Overrides};

/// Faults of a configuration, for people; none: a plugin can start with it, as far as this machine tells. Nothing is opened but
/// the files that it names.
#[must_use]
pub fn faults(overrides: Overrides) -> Vec<String> {
    let config = match Config::read(overrides) {
        Ok(config) => config,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut faults: Vec<String> = config.faults().iter().map(|error| format!("{error:#}")).collect();
    faults.extend(listeners(&config));
    faults.extend(northbound(&config).into_iter().map(|fault| format!("northbound.tls_*: {fault}")));
    faults.extend(store(&config));
    faults
}

fn listeners(config: &Config) -> Vec<String> {
    let api = match (config.api.tls_certificate.clone(), config.api.tls_key.clone()) {
        (Some(certificate), Some(key)) => Some(Files { certificate, key, client_ca: None, client_crl: None }),
        _ => None,
    };
    let agents = match config.agents.listen {
        // What is missing is a fault of the settings.
        agents::Listen::Tcp(_) => agents::tls_files(&config.agents).ok(),
        agents::Listen::Off | agents::Listen::Unix(_) => None,
    };
    let mut faults = Vec::new();
    for (section, files) in [("api.tls_*", &api), ("agents.tls_*, agents.client_*", &agents)] {
        let files = files.iter().flat_map(Files::faults);
        faults.extend(files.map(|fault| format!("{section}: {fault}")));
    }
    if let (true, Some(api), Some(agents)) = (faults.is_empty(), api, agents) {
        let identity = agents::check_api_certificate(Some(&api.certificate), agents.client_ca.as_deref());
        faults.extend(identity.err().map(|error| error.to_string()));
    }
    faults
}

fn northbound(config: &Config) -> Vec<String> {
    let Some(files) = config.northbound.tls() else { return Vec::new() };
    ClientFiles { ca: files.ca, own: Some((files.certificate, files.key)) }.faults()
}

fn store(config: &Config) -> Vec<String> {
    let settings = &config.store;
    if settings.members().is_some() {
        let files = settings.tls_ca.clone().map(|ca| ClientFiles {
            ca,
            own: settings.tls_certificate.clone().zip(settings.tls_key.clone()),
        });
        let faults = files.iter().flat_map(ClientFiles::faults).map(|fault| format!("store.tls_*: {fault}"));
        let password = cluster_credentials(settings).err().map(|error| format!("{error:#}"));
        return faults.chain(password).collect();
    }
    let directory = settings.path.parent().filter(|directory| !directory.as_os_str().is_empty());
    let checks =
        [secrets::check_directory(directory.unwrap_or(Path::new("."))), secrets::check_file(&settings.path)];
    checks.into_iter().filter_map(Result::err).map(|error| format!("store.path: {error}")).collect()
}
