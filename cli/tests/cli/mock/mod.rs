//! A small server with FiberLB's public API and resources in a map, for testing the command against. It knows no rules
//! but the few that the tests need; the real server is exercised end to end, through this command, in `testenv/e2e`.

mod services;
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use fiberlb_proto::v1::{
    backend_service_server::BackendServiceServer, health_check_service_server::HealthCheckServiceServer,
    listener_service_server::ListenerServiceServer, load_balancer_service_server::LoadBalancerServiceServer,
    node_service_server::NodeServiceServer, pool_service_server::PoolServiceServer,
    watch_service_server::WatchServiceServer,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

pub(crate) use world::World;

/// A running server; it stops when dropped.
pub(crate) struct Mock {
    /// Content of the server.
    pub(crate) world: Arc<World>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Result of a run of the command.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Exit code.
    pub(crate) code: i32,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ran {
    /// Output of a successful run.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Output of a successful run, as JSON.
    pub(crate) fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Lines of standard error of a run that failed with `code`.
    pub(crate) fn failed(self, code: i32) -> Vec<String> {
        assert_eq!(self.code, code, "{self:?}");
        self.err.lines().map(str::to_owned).collect()
    }
}

impl Mock {
    /// Starts a server of its own on a free port of loopback.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let world = Arc::new(World::new());
        let server = Server::builder()
            .add_service(LoadBalancerServiceServer::from_arc(Arc::clone(&world)))
            .add_service(ListenerServiceServer::from_arc(Arc::clone(&world)))
            .add_service(PoolServiceServer::from_arc(Arc::clone(&world)))
            .add_service(BackendServiceServer::from_arc(Arc::clone(&world)))
            .add_service(HealthCheckServiceServer::from_arc(Arc::clone(&world)))
            .add_service(NodeServiceServer::from_arc(Arc::clone(&world)))
            .add_service(WatchServiceServer::from_arc(Arc::clone(&world)));
        let serving = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { world, address, serving }
    }

    /// The command, set to this server and to nothing else of its surroundings.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bare(args);
        command.env("FIBERLB_ENDPOINT", format!("http://{}", self.address));
        command
    }

    /// Runs the command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args)).await
    }

    /// Runs the command with a file as its standard input.
    pub(crate) async fn run_with_input(&self, args: &[&str], input: &Path) -> Ran {
        let mut command = self.command(args);
        command.stdin(std::fs::File::open(input).unwrap());
        finish(command).await
    }
}

/// The command, with nothing of its surroundings.
pub(crate) fn bare(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fiberlb"));
    command.env_clear().args(args).stdin(Stdio::null());
    command
}

/// Runs a command to its end, while the server goes on.
pub(crate) async fn finish(mut command: Command) -> Ran {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
