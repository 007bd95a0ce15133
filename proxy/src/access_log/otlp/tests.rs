//! The exporter with a double of a collector: a gRPC server that answers as it is told, and keeps what it takes.

use std::collections::VecDeque;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Mutex;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use tokio::net::TcpListener as TokioListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;
use crate::access_log::line::tests::record;
use crate::access_log::{AccessLog, AccessLogSettings};
use crate::dataplane::ConnectionLog as _;

/// Answer of the collector to a call.
type Answer = Result<i64, Status>;

/// Number of records of each project in a call.
type Call = Vec<(String, usize)>;

/// A double of a collector.
#[derive(Clone, Default)]
struct Collected {
    /// Calls that have come.
    calls: Arc<Mutex<Vec<Call>>>,
    /// Answers to the next calls: how many records are rejected; later ones are taken.
    answers: Arc<Mutex<VecDeque<Answer>>>,
    /// True: no call is answered.
    is_silent: bool,
}

#[tonic::async_trait]
impl LogsService for Collected {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        if self.is_silent {
            return std::future::pending().await;
        }
        let of = |logs: opentelemetry_proto::tonic::logs::v1::ResourceLogs| {
            let attributes = logs.resource.unwrap().attributes;
            let project = attributes.into_iter().find(|it| it.key == "fiberlb.project.id");
            let Some(Value::StringValue(project)) = project.unwrap().value.unwrap().value else { panic!() };
            (project, logs.scope_logs.iter().map(|scope| scope.log_records.len()).sum())
        };
        let call = request.into_inner().resource_logs.into_iter().map(of).collect();
        let answer = self.answers.lock().unwrap().pop_front().unwrap_or(Ok(0));
        self.calls.lock().unwrap().push(call);
        let rejected = answer?;
        let partial_success = (rejected > 0)
            .then(|| ExportLogsPartialSuccess { rejected_log_records: rejected, ..Default::default() });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

impl Collected {
    /// Serves on a thread of its own, until the test ends.
    fn serve(&self, listener: TcpListener, tls: Option<ServerTlsConfig>) {
        let service = LogsServiceServer::new(self.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                listener.set_nonblocking(true).unwrap();
                let incoming = TcpListenerStream::new(TokioListener::from_std(listener).unwrap());
                let mut server = Server::builder();
                if let Some(tls) = tls {
                    server = server.tls_config(tls).unwrap();
                }
                server.add_service(service).serve_with_incoming(incoming).await.unwrap();
            });
        });
    }

    /// Records that were taken of a project, over all calls.
    fn of(&self, project: &str) -> usize {
        let calls = self.calls.lock().unwrap();
        calls.iter().flatten().filter(|(of, _)| of == project).map(|(_, count)| count).sum()
    }
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("127.0.0.1:{port}"))
}

fn log(endpoint: &str, tls: Option<CollectorTls>) -> AccessLog {
    let otlp = Some(OtlpSettings { endpoint: endpoint.parse().unwrap(), tls });
    let settings = AccessLogSettings {
        node: "n".to_owned(),
        sample: 1.0,
        lines_per_second: 1_000_000,
        otlp,
        ..AccessLogSettings::default()
    };
    AccessLog::start(settings).unwrap()
}

fn end(log: &AccessLog, project: &str) {
    log.listener(&record(project).labels).ended(&|| record(project));
}

/// Waits for these numbers of records that were sent, and lost.
fn until(log: &AccessLog, sent: u64, lost: u64) {
    let began = std::time::Instant::now();
    while log.exported() != (LogCounts { written: sent, lost }) {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", log.exported());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn a_collector_gets_each_projects_records_under_its_name_and_lines_are_none() {
    let ((listener, address), collected) = (listen(), Collected::default());
    collected.serve(listener, None);
    let log = log(&format!("http://{address}"), None);
    for project in ["web", "shop", "web"] {
        end(&log, project);
    }
    log.flush();
    until(&log, 3, 0);
    assert_eq!((collected.of("web"), collected.of("shop")), (2, 1));
    assert_eq!(log.counts(), LogCounts::default());
}

#[test]
fn records_wait_for_a_collector_that_is_away_or_does_not_take_them_yet() {
    let ((listener, address), collected) = (listen(), Collected::default());
    drop(listener);
    let log = log(&format!("http://{address}"), None);
    end(&log, "web");
    // The first attempt fails before anybody listens.
    log.flush();
    assert_eq!(log.exported(), LogCounts::default());
    let busy = [Err(Status::unavailable("busy")), Err(Status::resource_exhausted("busy"))];
    collected.answers.lock().unwrap().extend(busy);
    collected.serve(TcpListener::bind(address).unwrap(), None);
    until(&log, 1, 0);
    assert_eq!(collected.calls.lock().unwrap().len(), 3);
}

#[test]
fn what_a_collector_refuses_is_lost_and_holds_up_nothing() {
    let ((listener, address), collected) = (listen(), Collected::default());
    collected.answers.lock().unwrap().extend([Err(Status::invalid_argument("no")), Ok(1), Ok(i64::MAX)]);
    collected.serve(listener, None);
    let log = log(&format!("http://{address}"), None);
    end(&log, "web");
    until(&log, 0, 1);
    end(&log, "web");
    end(&log, "web");
    log.flush();
    // More than there were.
    end(&log, "web");
    log.flush();
    end(&log, "web");
    let all = || {
        let LogCounts { written, lost } = log.exported();
        written + lost
    };
    log.flush();
    while all() < 5 {
        std::thread::park_timeout(Duration::from_millis(10));
    }
    assert_eq!(log.exported(), LogCounts { written: 2, lost: 3 });
}

#[test]
fn a_collector_that_does_not_answer_costs_records_and_no_time() {
    let ((listener, address), collected) = (listen(), Collected { is_silent: true, ..Collected::default() });
    collected.serve(listener, None);
    let log = log(&format!("http://{address}"), None);
    const RECORDS: usize = 3 * QUEUE;
    let began = std::time::Instant::now();
    for _ in 0..RECORDS {
        end(&log, "web");
    }
    let took = began.elapsed();
    let LogCounts { written, lost } = log.exported();
    // One batch is on its way, and the queue is full.
    assert!(written == 0 && lost as usize >= RECORDS - QUEUE - 2 * BATCH, "{lost} lost");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn records_go_by_tls_with_the_nodes_certificate_where_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        restrict(&path);
        path
    };
    let (certificate, key) = issue("localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(certificate, key))
        .client_ca_root(Certificate::from_pem(ca.pem()));
    let ((listener, address), collected) = (listen(), Collected::default());
    collected.serve(listener, Some(tls));
    let port = address.rsplit(':').next().unwrap();
    let (certificate, key) = issue("node-1");
    let files = CollectorTls {
        ca: write("ca.pem", &ca.pem()),
        identity: Some((write("node.pem", &certificate), write("node.key", &key))),
    };
    let stranger = log(
        &format!("https://localhost:{port}"),
        Some(CollectorTls { ca: files.ca.clone(), identity: None }),
    );
    let log = log(&format!("https://localhost:{port}"), Some(files));
    end(&stranger, "stranger");
    end(&log, "web");
    until(&log, 1, 0);
    stranger.flush();
    assert_eq!((collected.of("web"), collected.of("stranger")), (1, 0));
}

/// Makes a file its owner's alone.
fn restrict(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
