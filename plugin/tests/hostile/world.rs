//! A plugin in a process of its own, messages in their encoded form, and another client.

use std::time::{Duration, Instant};

use fiberlb_daemon::testing::Daemon;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use prost::bytes::{Buf as _, BufMut as _};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

/// Size of a message that the plugin takes.
pub(crate) const MESSAGE: usize = 4 << 20;
/// Bound on the memory of the plugin whatever a client sends, in MiB: some times what it takes, and far below what it took without limits.
pub(crate) const MEMORY_MIB: u64 = 768;
/// Bound on the time of a refusal, on a busy machine and without optimisation.
pub(crate) const SOON: Duration = Duration::from_secs(5);
/// Bound on the size of a refusal: gRPC's default for trailers.
const REFUSAL_BYTES: usize = 8 << 10;
/// A tenant network; without a northbound database any is believed.
pub(crate) const NETWORK: &str = "6b7d4a9e-9d6e-4a51-8f0e-3a8a1b1f6c01";

/// A plugin that runs, without OVN.
pub(crate) struct World {
    plugin: Daemon,
    endpoint: Endpoint,
    _folder: TempDir,
}

impl World {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, place) = (folder.path().join("plugin.toml"), folder.path().display());
        let text = format!(
            "[api]\nlisten = \"127.0.0.1:0\"\n[agents]\nlisten = \"off\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
             [store]\npath = \"{place}/store.redb\"\n[northbound]\nendpoints = [\"unix:{place}/nb.sock\"]\n\
             [networks]\nallow_unknown_subnets = true\n"
        );
        std::fs::write(&config, text).unwrap();
        let arguments = ["--config", config.to_str().unwrap(), "--log-format", "json"];
        let mut plugin = Daemon::start(env!("CARGO_BIN_EXE_fiberlb-plugin"), &arguments, None);
        let address = plugin.serving("api_address").await;
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self { plugin, endpoint, _folder: folder }
    }

    /// A connection of its own.
    pub(crate) fn channel(&self) -> Channel {
        self.endpoint.connect_lazy()
    }

    /// A client that takes answers of any size.
    pub(crate) fn client(&self) -> LoadBalancerServiceClient<Channel> {
        LoadBalancerServiceClient::new(self.channel())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Sends an encoded message; how it was answered, and after how long.
    pub(crate) async fn send(&self, path: &str, message: Vec<u8>) -> (Result<usize, Status>, Duration) {
        let mut client = Grpc::new(self.channel());
        let path: PathAndQuery = path.parse().unwrap();
        let began = Instant::now();
        client.ready().await.unwrap();
        let answer = client.unary(Request::new(message), path, Raw).await;
        (answer.map(|answer| answer.into_inner().len()), began.elapsed())
    }

    /// Lines that the plugin has logged.
    pub(crate) fn log(&self) -> Vec<String> {
        self.plugin.log()
    }

    /// Id of the plugin's process.
    pub(crate) fn process(&self) -> u32 {
        self.plugin.id()
    }

    /// Most memory that the plugin has ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.plugin.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    pub(crate) fn check_memory(&self) {
        let peak = self.peak_mib();
        println!("the plugin had at most {peak} MiB");
        assert!(peak < MEMORY_MIB, "{peak} MiB");
    }

    /// Gets a load balancer again and again on one connection until it is told to stop; the longest time that took.
    pub(crate) fn watch_latency(&self, id: String) -> Latency {
        let (stop, mut stopped) = oneshot::channel();
        let mut client = self.client();
        let longest = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while stopped.try_recv().is_err() {
                let began = Instant::now();
                client.get_load_balancer(v1::GetLoadBalancerRequest { id: id.clone() }).await.unwrap();
                longest = longest.max(began.elapsed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            longest
        });
        Latency { stop, longest }
    }

    /// Makes a load balancer.
    pub(crate) async fn create(&self, vip: &str) -> String {
        let load_balancer = load_balancer(vip);
        let request =
            v1::CreateLoadBalancerRequest { load_balancer: Some(load_balancer), ..Default::default() };
        self.client().create_load_balancer(request).await.unwrap().into_inner().id
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.plugin.log();
            eprintln!("the end of the plugin's log:\n{}", log[log.len().saturating_sub(12)..].join("\n"));
        }
    }
}

/// Another client's latency.
pub(crate) struct Latency {
    stop: oneshot::Sender<()>,
    longest: tokio::task::JoinHandle<Duration>,
}

impl Latency {
    pub(crate) async fn longest(self) -> Duration {
        self.stop.send(()).unwrap();
        self.longest.await.unwrap()
    }
}

pub(crate) fn load_balancer(vip: &str) -> v1::LoadBalancer {
    v1::LoadBalancer { network: NETWORK.to_owned(), vip_address: vip.to_owned(), ..Default::default() }
}

/// Checks that a refusal fits into the trailers that any client takes, and is no fault of the plugin.
pub(crate) fn check_refusal(what: &str, refused: &Status) {
    use tonic::Code;
    let is_own =
        matches!(refused.code(), Code::Internal | Code::Unknown | Code::Unavailable | Code::Cancelled);
    assert!(!is_own, "{what}: {refused}");
    let size = refused.message().len() + refused.details().len() * 4 / 3;
    assert!(size < REFUSAL_BYTES, "{what}: a refusal of {size} bytes");
    let details = refused.get_error_details();
    let violations = details.bad_request().map_or(0, |it| it.field_violations.len())
        + details.precondition_failure().map_or(0, |it| it.violations.len());
    assert!(violations <= 50, "{what}: {violations} violations");
}

/// Messages as they are on the wire.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
