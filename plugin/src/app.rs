//! Composition root: makes the parts, connects them, and shuts them down in order.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fiberlb_daemon::admin::Admin;
use fiberlb_daemon::descriptors;
use fiberlb_daemon::listen::{ConnectionSettings, Listener, Listeners, Socket};
use fiberlb_daemon::metrics::register_certificates;
use fiberlb_daemon::secrets;
use fiberlb_daemon::service;
use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{Installation, OWNER_KEY};
use ovsdb::client::{self, Client, ConnectionStatus};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use uuid::Uuid;

use crate::api::{Dependencies, PageTokens, UseCases};
use crate::auth::{Authenticator, Local};
use crate::catalog::{self, Model, Writer};
use crate::config::{self, Config};
use crate::fleet::Fleet;
use crate::leadership::{self, Campaign, Cluster, LeaderRecord, LeadershipSettings, Peers, Roles};
use crate::metrics::Metrics;
use crate::networks::Networks;
use crate::readiness::PluginReadiness;
use crate::resources::{installation_key, page_tokens_key};
use crate::{agents, grpc, reconcile};
use fiberlb_store::{
    ChainFireOptions, ChainFireStore, CommitError, Compare, EmbeddedStore, Revision, Store, Transaction,
    Write,
};

mod check;

pub use check::faults;

/// Interval at which an unchanged reason of a lost northbound connection is logged again.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// Descriptors that no client's connection may take: store, northbound database, other plugins, files.
const RESERVED_DESCRIPTORS: u64 = 256;
/// Most bytes of a key's or a password's file that are read.
const MOST_SECRET_BYTES: u64 = 1 << 20;

/// A running plugin.
pub struct App {
    /// Address of the gRPC API.
    pub api_address: SocketAddr,
    /// Address of the metrics.
    pub metrics_address: SocketAddr,
    stop: watch::Sender<bool>,
    servers: JoinSet<anyhow::Result<()>>,
    campaign: JoinHandle<anyhow::Result<()>>,
    follower: JoinHandle<anyhow::Result<()>>,
    watchdog: JoinHandle<()>,
    store: Arc<dyn Store>,
}

/// Opens the configured store and starts the plugin on it.
///
/// # Errors
/// Names a store or address that cannot be opened, and says what to do.
pub async fn start(mut config: Config) -> anyhow::Result<App> {
    let monitoring = Monitoring::open(&mut config);
    // Of two plugins with one file and one address, the second must fail on the file.
    let store = open_store(&config.store).await?;
    let principal = config.principal.clone();
    start_monitored(monitoring?, config, store, Arc::new(Local(principal))).await
}

/// Part of the plugin that is there from the first moment on: metrics, liveness and readiness.
struct Monitoring {
    metrics_address: SocketAddr,
    listeners: Listeners,
    readiness: Arc<PluginReadiness>,
    /// Set once all metrics are registered.
    metrics: Arc<OnceLock<Arc<Metrics>>>,
    stop: watch::Sender<bool>,
    servers: JoinSet<anyhow::Result<()>>,
}

impl Monitoring {
    /// Fits the listeners to the descriptors that there are, and serves what monitoring asks.
    fn open(config: &mut Config) -> anyhow::Result<Self> {
        fit_connections(config);
        let (listeners, stop) = (Listeners::default(), watch::Sender::new(false));
        let readiness = Arc::new(PluginReadiness::new(listeners.clone()));
        let metrics = Arc::new(OnceLock::<Arc<Metrics>>::new());
        let socket = listen(config.metrics.listen)?;
        let metrics_address = socket.address().unwrap_or(config.metrics.listen);
        let listener =
            Listener::new("metrics", socket, config.metrics.connections.clone(), listeners.clone());
        let registered = Arc::clone(&metrics);
        let scrape = move || registered.get().map_or_else(|| Ok("# EOF\n".to_owned()), |all| all.encode());
        let admin = Admin::new(scrape, Arc::clone(&readiness) as _);
        let (mut servers, stopped) = (JoinSet::new(), stop.subscribe());
        servers.spawn(async move {
            listener.serve(admin, stopped).await;
            Ok(())
        });
        Ok(Self { metrics_address, listeners, readiness, metrics, stop, servers })
    }
}

/// Lowers the limits of the listeners where the process may not open as many files.
fn fit_connections(config: &mut Config) {
    let limit = descriptors::raise_limit().unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot raise the limit of open files");
        descriptors::limit()
    });
    let (api, agents, metrics) =
        (&mut config.api.connections, &mut config.agents.connections, &mut config.metrics.connections);
    if ConnectionSettings::fit(limit, RESERVED_DESCRIPTORS, &mut [api, agents, metrics]) {
        tracing::warn!(
            limit,
            api = config.api.connections.total,
            agents = config.agents.connections.total,
            metrics = config.metrics.connections.total,
            "lowered the listeners' limits on connections: the process may open few files; raise LimitNOFILE"
        );
    }
}

fn listen(address: SocketAddr) -> anyhow::Result<Socket> {
    Socket::tcp(address)
        .with_context(|| format!("cannot listen on {address}: is it in use, or not this machine's?"))
}

/// Opens the configured store: a file or a cluster.
///
/// # Errors
/// Says what is wrong with the store, and what to do.
pub async fn open_store(settings: &config::StoreSettings) -> anyhow::Result<Arc<dyn Store>> {
    let Some(members) = settings.members() else {
        let directory = settings.path.parent().filter(|directory| !directory.as_os_str().is_empty());
        secrets::check_directory(directory.unwrap_or(Path::new("."))).context("store.path")?;
        secrets::check_file(&settings.path).context("store.path")?;
        return Ok(Arc::new(EmbeddedStore::open(&settings.path)?));
    };
    let cluster = chainfire_client::Config {
        tls: cluster_tls(settings)?,
        credentials: cluster_credentials(settings)?,
        timeout: Duration::from_millis(settings.timeout_ms),
        ..chainfire_client::Config::new(members)
    };
    Ok(Arc::new(ChainFireStore::open(ChainFireOptions::new(cluster)).await?))
}

fn cluster_tls(settings: &config::StoreSettings) -> anyhow::Result<Option<chainfire_client::Tls>> {
    let Some(ca) = &settings.tls_ca else { return Ok(None) };
    let certificate = match (&settings.tls_certificate, &settings.tls_key) {
        (Some(chain), Some(key)) => Some(chainfire_client::Certificate {
            chain: read_file("store.tls_certificate", chain)?,
            key: read_secret("store.tls_key", key)?,
        }),
        _ => None,
    };
    let ca = read_file("store.tls_ca", ca)?;
    Ok(Some(chainfire_client::Tls { ca, certificate, server_name: None }))
}

fn cluster_credentials(
    settings: &config::StoreSettings,
) -> anyhow::Result<Option<chainfire_client::Credentials>> {
    let (Some(user), Some(file)) = (&settings.user, &settings.password_file) else { return Ok(None) };
    let password = String::from_utf8(read_secret("store.password_file", file)?)
        .with_context(|| format!("store.password_file: {} is not text", file.display()))?;
    let password = password.trim_end().to_owned();
    Ok(Some(chainfire_client::Credentials { user: user.clone(), password }))
}

fn read_file(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{key}: cannot read {}", path.display()))
}

fn read_secret(key: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    secrets::read(path, MOST_SECRET_BYTES).with_context(|| format!("{key}: cannot read {}", path.display()))
}

/// Starts the plugin on a store.
///
/// # Errors
/// Names a file or address that cannot be opened, and says what to do.
pub async fn start_on(
    mut config: Config,
    store: Arc<dyn Store>,
    authenticator: Arc<dyn Authenticator>,
) -> anyhow::Result<App> {
    start_monitored(Monitoring::open(&mut config)?, config, store, authenticator).await
}

async fn start_monitored(
    monitoring: Monitoring,
    config: Config,
    store: Arc<dyn Store>,
    authenticator: Arc<dyn Authenticator>,
) -> anyhow::Result<App> {
    let Monitoring { metrics_address, listeners, readiness, metrics: scraped, stop, mut servers } =
        monitoring;
    let mut metrics = Metrics::new();
    let store = metrics.timed(store);
    readiness.opened(Arc::clone(&store));
    let installation = installation(&*store).await?;
    let page_tokens = Arc::new(page_tokens(&*store).await?);
    let model = Arc::new(Model::load(&*store).await.context("the store cannot be used")?);
    readiness.loaded();
    listeners.register(metrics.registry());
    register_certificates(metrics.registry(), certificates(&config));
    catalog::register(metrics.registry(), Arc::clone(&model));
    if let Some(key) = &config.northbound.tls_key {
        secrets::check_file(key).context("northbound.tls_key")?;
    }
    let northbound = client::Config {
        endpoints: config.endpoints()?,
        tls: config.northbound.tls(),
        probe_interval: Duration::from_secs(config.northbound.probe_s),
        transact_timeout: Duration::from_secs(config.northbound.timeout_s),
        max_message_bytes: config.northbound.max_message_bytes,
        ..client::Config::new("OVN_Northbound")
    };
    metrics.limit_bytes("northbound.max_message_bytes", northbound.max_message_bytes as u64);
    metrics.limit_bytes("limits.vips_bytes", config.limits.vips_bytes);
    metrics.limit_bytes("limits.vips_bytes_per_project", config.limits.vips_bytes_per_project);
    let (northbound, events) = Client::start(northbound, Northbound::new(OWNER_KEY));
    reconcile::register(metrics.registry(), northbound.clone());
    let fleet = Fleet::load(
        installation,
        Arc::clone(&model),
        northbound.clone(),
        Arc::clone(&store),
        config.fleet.clone(),
        None,
    );
    let roles = Arc::new(Roles::new(Arc::new(fleet.await.context("the store cannot be used")?)));
    leadership::register(metrics.registry(), Arc::clone(&roles));
    let metrics = Arc::new(metrics);
    // There is one in a process.
    let _ = scraped.set(Arc::clone(&metrics));
    tokio::spawn(log_connection(northbound.status(), Arc::clone(&metrics)));

    let follower = tokio::spawn(follow(Arc::clone(&model), Arc::clone(&store)));
    let writer = Arc::new(Writer::new(Arc::clone(&model), Arc::clone(&store), Arc::clone(&metrics)));
    agents::check_api_certificate(config.api.tls_certificate.as_deref(), config.agents.client_ca.as_deref())
        .context("api.tls_certificate")?;
    let agents = agents::Server::bind(&config.agents, installation.0, roles.route(), &listeners)?;
    let agents_listen = agents.as_ref().map(agents::Server::listen);
    let listens = agents_listen.as_ref().and_then(|listen| config.agents.advertised(listen));
    if store.election().is_some() && agents.is_some() && listens.is_none() {
        bail!(
            "other plugins on the store must know where this one listens for node agents, and agents.listen is {}: give \
             agents.advertise (--agents-advertise https://HOST:PORT)",
            config.agents.listen
        );
    }
    let campaign = Campaign {
        installation,
        model: Arc::clone(&model),
        store: Arc::clone(&store),
        northbound: northbound.clone(),
        events,
        writer: Arc::clone(&writer),
        metrics: Arc::clone(&metrics),
        roles: Arc::clone(&roles),
        settings: LeadershipSettings { reconcile: config.reconcile.clone(), fleet: config.fleet.clone() },
        record: LeaderRecord::new(Uuid::new_v4(), host_name(), listens),
        has_led: false,
    };
    let cluster = Arc::new(Cluster::new(
        installation,
        Arc::clone(&model),
        northbound.clone(),
        Arc::clone(&metrics),
        Arc::clone(&roles),
        agents::Plugins::new(config.agents.clone()),
    ));
    let cases = UseCases::new(Dependencies {
        model,
        writer,
        networks: Arc::new(Networks { northbound, installation, roles }),
        nodes: Arc::clone(&cluster) as _,
        traffic: Arc::clone(&cluster) as _,
        access_logs: Arc::clone(&cluster) as _,
        reconciliation: Arc::clone(&cluster) as _,
        metrics: Arc::clone(&metrics),
        limits: config.limits.clone(),
        network_settings: config.networks.clone(),
        page_tokens,
    });

    let threads = grpc::ApiThreads::start().context("cannot start the API's threads")?;
    let api_socket = {
        let _entered = threads.enter();
        listen(config.api.listen)?
    };
    let api_address = api_socket.address().unwrap_or(config.api.listen);
    let handle = threads.handle();
    let watchdog = tokio::spawn(service::feed_watchdog(async move || pass_through(handle.as_ref()).await));
    let stopped = stop.subscribe();
    // It ends with the streams of the nodes: a leader without them would declare the nodes dead.
    let campaign = tokio::spawn(campaign.run(stopped.clone()));
    let api = grpc::serve(api_socket, listeners, cases, authenticator, config, stopped.clone());
    servers.spawn(threads.run(api));
    if let Some(agents) = agents.map(|agents| agents.answering(Peers(cluster))) {
        servers.spawn(async move {
            agents.serve(stopped).await;
            Ok(())
        });
    }
    let agents = agents_listen.unwrap_or(agents::Listen::Off);
    tracing::info!(%api_address, %metrics_address, %agents, installation = %installation.0, "serving");
    service::ready(&format!("API on {api_address}, node agents on {agents}, metrics on {metrics_address}"))
        .await;
    Ok(App { api_address, metrics_address, stop, servers, campaign, follower, watchdog, store })
}

impl App {
    /// Runs until `until` is done or a part fails, then shuts down in order: calls in progress are answered,
    /// a transaction in flight is waited for, and the store is closed last.
    ///
    /// # Errors
    /// The part that failed.
    pub async fn run(self, until: impl Future<Output = ()>) -> anyhow::Result<()> {
        let Self { stop, mut servers, mut campaign, mut follower, watchdog, store, .. } = self;
        let mut ended = tokio::select! {
            () = until => Ok(()),
            Some(server) = servers.join_next() => outcome(server),
            result = &mut campaign => outcome(result).and(Err(anyhow!("it carries out nothing any more"))),
            result = &mut follower => outcome(result).context("the model cannot follow the store any more"),
        };
        tracing::info!("stopping");
        service::stopping(watchdog).await;
        stop.send_replace(true);
        // A failure now must not keep the rest from an orderly shutdown.
        while let Some(server) = servers.join_next().await {
            ended = ended.and(outcome(server));
        }
        if !campaign.is_finished() {
            ended = ended.and(outcome(campaign.await));
        }
        store.close().await;
        tracing::info!("stopped");
        ended
    }
}

/// Certificates in the settings, each by the key of its file.
fn certificates(config: &Config) -> [(&'static str, Option<PathBuf>); 7] {
    let Config { api, agents, northbound, store, .. } = config;
    [
        ("api.tls_certificate", api.tls_certificate.clone()),
        ("agents.tls_certificate", agents.tls_certificate.clone()),
        ("agents.client_ca", agents.client_ca.clone()),
        ("northbound.tls_ca", northbound.tls_ca.clone()),
        ("northbound.tls_certificate", northbound.tls_certificate.clone()),
        ("store.tls_ca", store.tls_ca.clone()),
        ("store.tls_certificate", store.tls_certificate.clone()),
    ]
}

/// Passes through the threads that carry out, and through the API's: ends once both have run something.
async fn pass_through(api: Option<&Handle>) {
    // An error: they have ended, as at a shutdown.
    let _ = tokio::spawn(async {}).await;
    if let Some(api) = api {
        let _ = api.spawn(async {}).await;
    }
}

/// Result of a part; a panic in it is an error too.
fn outcome(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended?
}

async fn follow(model: Arc<Model>, store: Arc<dyn Store>) -> anyhow::Result<()> {
    Ok(model.follow(&*store).await?)
}

/// Host name, for display.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Id of this installation.
async fn installation(store: &dyn Store) -> anyhow::Result<Installation> {
    let id = made_once(store, installation_key(), "id", || Ok(Uuid::new_v4().to_string())).await?;
    Ok(Installation(id.parse().with_context(|| format!("the value of {} is damaged", installation_key()))?))
}

/// Seal of the page tokens of all plugins on this store.
async fn page_tokens(store: &dyn Store) -> anyhow::Result<PageTokens> {
    let secret = made_once(store, page_tokens_key(), "secret", || {
        let mut secret = [0; PageTokens::SECRET_BYTES];
        aws_lc_rs::rand::fill(&mut secret).context("there are no random numbers")?;
        Ok(STANDARD.encode(secret))
    });
    let secret = STANDARD.decode(secret.await?).ok().and_then(|secret| secret.try_into().ok());
    let secret = secret.with_context(|| format!("the value of {} is damaged", page_tokens_key()))?;
    Ok(PageTokens::new(&secret)?)
}

/// Text in the field `name` of the stored value of `key`, which the first plugin that asks for it makes.
async fn made_once(
    store: &dyn Store,
    key: String,
    name: &str,
    make: impl Fn() -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    loop {
        if let Some(entry) = store.get(&key).await? {
            let value: serde_json::Value = serde_json::from_slice(&entry.value)
                .with_context(|| format!("the value of {key} is damaged"))?;
            let text = value.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
            return text.with_context(|| format!("the value of {key} has no {name}"));
        }
        let value = serde_json::json!({ "version": 1, name: make()? }).to_string().into_bytes();
        let made = Transaction {
            compares: vec![Compare { key: key.clone(), revision: Revision::ZERO }],
            writes: vec![Write::Put { key: key.clone(), value }],
        };
        match store.commit(made).await {
            // Another plugin may have been first; what it made counts.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {key}")),
        }
    }
}

/// Logs when the northbound connection is established and lost; while it is down, each new reason once, and
/// an unchanged one once a minute.
async fn log_connection(mut status: watch::Receiver<ConnectionStatus>, metrics: Arc<Metrics>) {
    let mut logged: HashMap<String, Instant> = HashMap::new();
    while status.changed().await.is_ok() {
        let now = status.borrow_and_update().clone();
        metrics.northbound_connected.set(i64::from(now.is_live()));
        let Some(reason) = now.reason() else {
            logged.clear();
            tracing::info!(northbound = %now, "northbound database connected");
            continue;
        };
        logged.retain(|_, at| at.elapsed() < LOG_AGAIN);
        if let Entry::Vacant(entry) = logged.entry(reason) {
            entry.insert(Instant::now());
            tracing::warn!(northbound = %now, "northbound database not connected; storing writes to apply them later");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use fiberlb_store::MemoryStore;

    #[tokio::test]
    async fn secrets_that_others_can_read_or_replace_are_refused_with_what_to_run() {
        let directory = tempfile::tempdir().unwrap();
        let chmod = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let file = |name: &str, mode| {
            let path = directory.path().join(name);
            std::fs::write(&path, "secret").unwrap();
            chmod(&path, mode);
            path
        };
        let (ca, key, password) = (file("ca.pem", 0o644), file("key", 0o644), file("password", 0o604));
        let cluster = config::StoreSettings {
            path: "chainfire://127.0.0.1:1".into(),
            tls_ca: Some(ca.clone()),
            ..config::StoreSettings::default()
        };
        let with_key = config::StoreSettings {
            tls_certificate: Some(ca.clone()),
            tls_key: Some(key.clone()),
            ..cluster.clone()
        };
        let with_password = config::StoreSettings {
            user: Some("fiberlb".to_owned()),
            password_file: Some(password),
            ..cluster
        };
        let embedded = |path| config::StoreSettings { path, ..config::StoreSettings::default() };
        let open = directory.path().join("open");
        std::fs::create_dir(&open).unwrap();
        chmod(&open, 0o777);
        for (settings, name) in [
            (with_key, "store.tls_key"),
            (with_password, "store.password_file"),
            (embedded(open.join("store.redb")), "store.path"),
            (embedded(file("store.redb", 0o644)), "store.path"),
        ] {
            let error = format!("{:#}", open_store(&settings).await.err().unwrap());
            assert!(error.contains(name) && error.contains("run chmod"), "{error}");
        }
        chmod(&open, 0o755);
        open_store(&embedded(open.join("store.redb"))).await.unwrap().close().await;
        let mut config = Config::default();
        config.northbound.tls_key = Some(key.clone());
        (config.api.listen, config.metrics.listen) =
            ("127.0.0.1:0".parse().unwrap(), "127.0.0.1:0".parse().unwrap());
        let refused =
            start_on(config, Arc::new(MemoryStore::default()), Arc::new(Local(Default::default()))).await;
        let error = format!("{:#}", refused.err().unwrap());
        assert!(error.contains("northbound.tls_key") && error.contains("run chmod"), "{error}");
        let files = fiberlb_daemon::tls::Files { certificate: ca, key, client_ca: None, client_crl: None };
        assert!(files.load().unwrap_err().to_string().contains("run chmod"));
    }

    #[tokio::test]
    async fn any_server_that_fails_ends_the_plugin_in_order() {
        let (stop, mut stopped) = watch::channel(false);
        let mut campaign_stopped = stopped.clone();
        let mut servers = JoinSet::new();
        servers.spawn(async move {
            stopped.wait_for(|stop| *stop).await?;
            Ok(())
        });
        servers.spawn(async { anyhow::bail!("the second one failed") });
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let app = App {
            api_address: address,
            metrics_address: address,
            stop,
            servers,
            campaign: tokio::spawn(async move {
                campaign_stopped.wait_for(|stop| *stop).await?;
                Ok(())
            }),
            follower: tokio::spawn(std::future::pending()),
            watchdog: tokio::spawn(std::future::pending()),
            store: Arc::new(MemoryStore::default()),
        };
        let ended = tokio::time::timeout(Duration::from_secs(10), app.run(std::future::pending())).await;
        assert_eq!(ended.unwrap().unwrap_err().to_string(), "the second one failed");
    }
}
