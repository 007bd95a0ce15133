//! The proxies that are compared.

use std::fmt;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use crate::backend::{DATAGRAMS, ECHO, STREAM};
use crate::world::{BACKEND, PROXY, Process, World};

/// Port whose clients go to the echo backends in turn.
pub(crate) const ECHO_PORT: u16 = 8001;
/// Port whose clients go to the backend that streams.
pub(crate) const STREAM_PORT: u16 = 8002;
/// Port whose datagrams go to the backend that returns them.
pub(crate) const DATAGRAM_PORT: u16 = 8003;
/// Limit of connections that each proxy watches over, and never reaches.
pub(crate) const MAX_CONNECTIONS: u32 = 7_000;
/// Folder of the newest HAProxy and nginx.
const RIVALS: &str = "/var/cache/fiberlb/rivals/sid";
/// Longest that a proxy may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A proxy. The first is FiberLB's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    FiberLb,
    HaProxy,
    Nginx,
    Envoy,
}

impl fmt::Display for Rival {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::FiberLb => "FiberLB",
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Envoy => "Envoy",
        })
    }
}

impl Rival {
    pub(crate) const ALL: [Self; 4] = [Self::FiberLb, Self::HaProxy, Self::Nginx, Self::Envoy];

    /// True if it relays datagrams.
    pub(crate) fn has_udp(self) -> bool {
        self != Self::HaProxy
    }

    fn program(self) -> anyhow::Result<PathBuf> {
        Ok(match self {
            Self::FiberLb => std::env::current_exe()?,
            Self::HaProxy => Path::new(RIVALS).join("programs/haproxy"),
            Self::Nginx => Path::new(RIVALS).join("programs/nginx"),
            Self::Envoy => envoy()?,
        })
    }

    pub(crate) fn version(self) -> anyhow::Result<String> {
        let argument = match self {
            Self::FiberLb => return Ok(env!("CARGO_PKG_VERSION").to_owned()),
            Self::HaProxy | Self::Nginx => "-v",
            Self::Envoy => "--version",
        };
        let program = self.program()?;
        let output = Command::new(&program).arg(argument).output();
        let output = output
            .with_context(|| format!("{}: run testenv/install-packages.sh --bench", program.display()))?;
        // nginx says it on standard error.
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().find(|line| line.contains("ersion")).unwrap_or_default().trim().to_owned())
    }

    /// Starts it. What is returned beside it must be kept as long.
    pub(crate) fn start(self, world: &World) -> anyhow::Result<(Process, TempDir)> {
        let (program, folder) = (self.program()?, tempfile::tempdir()?);
        let name = folder.path().join(if self == Self::Envoy { "envoy.yaml" } else { "configuration" });
        let file = name.to_str().context("the temporary folder's name is not UTF-8")?;
        let arguments: Vec<&str> = match self {
            Self::FiberLb => vec!["relay", folder.path().to_str().unwrap_or_default()],
            // It logs to standard error, which is /dev/null when it is quiet.
            Self::HaProxy => vec!["-db", "-q", "-f", file],
            Self::Nginx => vec!["-c", file, "-e", "/dev/null"],
            Self::Envoy => {
                vec!["-c", file, "--concurrency", "1", "--log-level", "off", "--disable-hot-restart"]
            }
        };
        std::fs::write(&name, self.configuration(folder.path()))?;
        let proxy = world.start_proxy(&program, &arguments)?;
        for port in [ECHO_PORT, STREAM_PORT] {
            listening(port).with_context(|| format!("{self} does not listen on port {port}"))?;
        }
        Ok((proxy, folder))
    }

    fn configuration(self, folder: &Path) -> String {
        match self {
            Self::FiberLb => String::new(),
            Self::HaProxy => haproxy(),
            Self::Nginx => nginx(folder),
            Self::Envoy => envoy_configuration(folder),
        }
    }
}

/// The program inside the package of PyPI, without its launcher in Python.
fn envoy() -> anyhow::Result<PathBuf> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/envoy/lib");
    let folders = std::fs::read_dir(&library)
        .with_context(|| format!("{}: run testenv/install-packages.sh --bench", library.display()))?;
    let mut programs = folders.flatten().map(|folder| folder.path().join("site-packages/envoy/_bin/envoy"));
    programs.find(|program| program.is_file()).context("no program in Envoy's package")
}

fn listening(port: u16) -> anyhow::Result<()> {
    let began = Instant::now();
    while TcpStream::connect((PROXY, port)).is_err() {
        if began.elapsed() > PATIENCE {
            bail!("waited {PATIENCE:?}");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// Splicing as Octavia configures it; each hundredth connection is logged.
fn haproxy() -> String {
    let servers = |ports: &[u16]| -> String {
        ports.iter().map(|port| format!(" server s{port} {BACKEND}:{port}\n")).collect()
    };
    format!(
        "global\n nbthread 1\n maxconn {MAX_CONNECTIONS}\n log stderr format raw sample 1:100 local0\n\
         defaults\n mode tcp\n log global\n option tcplog\n maxconn {MAX_CONNECTIONS}\n timeout connect 5s\n timeout client 50s\n \
         timeout server 50s\n option splice-request\n option splice-response\n balance roundrobin\n\
         listen echo\n bind {PROXY}:{ECHO_PORT}\n{}\
         listen stream\n bind {PROXY}:{STREAM_PORT}\n{}",
        servers(&ECHO),
        servers(&[STREAM])
    )
}

/// Half-closed connections go on, as with all the others; by default nginx closes both halves at once.
fn nginx(folder: &Path) -> String {
    let servers = |ports: &[u16]| -> String {
        ports.iter().map(|port| format!("  server {BACKEND}:{port};\n")).collect()
    };
    let folder = folder.display();
    format!(
        "load_module {RIVALS}/usr/lib/nginx/modules/ngx_stream_module.so;\n\
         daemon off;\nmaster_process off;\nworker_processes 1;\n\
         pid {folder}/nginx.pid;\nevents {{ worker_connections 19000; }}\n\
         stream {{\n error_log /dev/null;\n proxy_half_close on;\n proxy_connect_timeout 5s;\n proxy_timeout 50s;\n \
         log_format all '$time_iso8601 $remote_addr:$remote_port $upstream_addr $status $bytes_received $bytes_sent $session_time';\n \
         split_clients $remote_port$connection $logged {{ 1% 1; * 0; }}\n access_log {folder}/access.log all if=$logged;\n \
         limit_conn_zone $server_port zone=all:1m;\n limit_conn all {MAX_CONNECTIONS};\n \
         upstream echo {{\n{} }}\n upstream stream {{\n{} }}\n \
         server {{ listen {PROXY}:{ECHO_PORT} backlog=4096; proxy_pass echo; }}\n \
         server {{ listen {PROXY}:{STREAM_PORT}; proxy_pass stream; }}\n \
         server {{ listen {PROXY}:{DATAGRAM_PORT} udp; proxy_pass {BACKEND}:{DATAGRAMS}; }}\n}}\n",
        servers(&ECHO),
        servers(&[STREAM])
    )
}

fn envoy_configuration(folder: &Path) -> String {
    let file = folder.join("access.log");
    let log = format!(
        "          access_log:\n          - name: file\n            filter: {{ runtime_filter: {{ runtime_key: none, \
         percent_sampled: {{ numerator: 1 }} }} }}\n            typed_config:\n              \
         \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n              path: {}\n",
        file.display()
    );
    let listener = |name: &str, port: u16| {
        format!(
            "  - name: {name}\n    address: {{ socket_address: {{ address: {PROXY}, port_value: {port} }} }}\n    \
             filter_chains:\n    - filters:\n      - name: limit\n        typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit\n          \
             stat_prefix: {name}\n          max_connections: {MAX_CONNECTIONS}\n      - name: proxy\n        \
             typed_config:\n          \
             \"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n          \
             stat_prefix: {name}\n          cluster: {name}\n          idle_timeout: 50s\n{log}"
        )
    };
    let datagrams = format!(
        "  - name: datagrams\n    address: {{ socket_address: {{ protocol: UDP, address: {PROXY}, port_value: {DATAGRAM_PORT} }} }}\n    \
         listener_filters:\n    - name: proxy\n      typed_config:\n        \
         \"@type\": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig\n        \
         stat_prefix: datagrams\n        idle_timeout: 50s\n        matcher:\n          on_no_match:\n            action:\n              \
         name: route\n              typed_config:\n                \
         \"@type\": type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route\n                \
         cluster: datagrams\n"
    );
    let cluster = |name: &str, protocol: &str, ports: &[u16]| {
        let endpoints: String = ports
            .iter()
            .map(|port| {
                format!(
                    "      - endpoint: {{ address: {{ socket_address: {{ protocol: {protocol}, address: {BACKEND}, port_value: {port} }} }} }}\n"
                )
            })
            .collect();
        format!(
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 5s\n    circuit_breakers: {{ thresholds: \
             [ {{ max_connections: {MAX_CONNECTIONS}, max_pending_requests: {MAX_CONNECTIONS} }} ] }}\n    \
             load_assignment:\n      cluster_name: {name}\n      endpoints:\n      - lb_endpoints:\n{}",
            endpoints.replace("      - endpoint", "        - endpoint")
        )
    };
    format!(
        "static_resources:\n  listeners:\n{}{}{datagrams}  clusters:\n{}{}{}",
        listener("echo", ECHO_PORT),
        listener("stream", STREAM_PORT),
        cluster("echo", "TCP", &ECHO),
        cluster("stream", "TCP", &[STREAM]),
        cluster("datagrams", "UDP", &[DATAGRAMS])
    )
}
