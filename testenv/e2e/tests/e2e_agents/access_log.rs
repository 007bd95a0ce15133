//! The access log of a listener, as its owner reads it: connections of both nodes as they end, with the reason, and nothing of
//! what OVN carries.

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Server;
use fiberlb_proto::v1;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use tonic::{Code, Status, Streaming};

use crate::api::{id_of, online};
use crate::common::Tenant;
use crate::resources::{OVN_PORT, VIPS, at, listener, load_balancer};
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site, ask, serve, vm};

const REQUESTS: u64 = 40;
/// Port of the listener that OVN carries.
const PLAIN_PORT: u16 = 81;

/// Longest wait for a connection to be shown.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// Reads the access log of a listener.
pub(crate) async fn read(
    tenant: &Tenant,
    id: &str,
) -> Result<Streaming<v1::StreamAccessLogResponse>, Status> {
    let mut listeners = ListenerServiceClient::new(tenant.plugin.channel().unwrap());
    let request = v1::StreamAccessLogRequest { id: id.to_owned() };
    listeners.stream_access_log(request).await.map(tonic::Response::into_inner)
}

/// The next response of a stream, or its end.
async fn next(
    stream: &mut Streaming<v1::StreamAccessLogResponse>,
) -> Result<Option<v1::StreamAccessLogResponse>, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("a connection is shown")
}

/// Connections until there are so many.
async fn entries(stream: &mut Streaming<v1::StreamAccessLogResponse>, count: u64) -> Vec<v1::AccessLogEntry> {
    let mut all = Vec::new();
    while (all.len() as u64) < count {
        let response = next(stream).await.unwrap().unwrap();
        assert_eq!(response.omitted, 0);
        all.extend(response.entries);
    }
    all
}

/// A backend in both families that takes connections, and does nothing with them.
fn serve_nothing(vm: &Vm) -> [std::net::TcpListener; 2] {
    [vm.ipv4().unwrap(), vm.ipv6().unwrap()]
        .map(|address| vm.tcp_listener((address, BACKEND_PORT).into()).unwrap())
}

/// Reads a listener, and waits until its nodes know of it: until a connection is shown.
async fn begun(tenant: &Tenant, id: &str, vm: &Vm) -> Streaming<v1::StreamAccessLogResponse> {
    let mut stream = read(tenant, id).await.unwrap();
    let mut nodes = std::collections::BTreeSet::new();
    while nodes.len() < 2 {
        assert!(ask(vm, at(VIPS[0], OVN_PORT), REQUESTS).await.all_answered());
        let quiet = std::time::Duration::from_millis(700);
        while let Ok(response) = tokio::time::timeout(quiet, stream.message()).await {
            nodes.extend(response.unwrap().unwrap().entries.into_iter().map(|entry| entry.node_id));
        }
    }
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_shown_as_they_end_with_the_reason() {
    scenario("connections_are_shown_as_they_end_with_the_reason", || async {
        let site = Site::start("access-log").await;
        let vms = [vm("b1", 1, "ch2", "sw0"), vm("c1", 11, "ch1", "sw0")];
        let [b1, c1]: [Vm; 2] = site.lab.add_vms(vms.into()).await.unwrap().try_into().unwrap();
        let servers: [Server; 2] = serve(&b1);
        let mut tree = load_balancer("web", site.network, VIPS, &[1]);
        let proxied = v1::Listener {
            half_close_timeout: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..listener(OVN_PORT)
        };
        let plain = v1::Listener { port: PLAIN_PORT.into(), ..listener(OVN_PORT) };
        tree.listeners = vec![proxied, plain];
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let target = at(VIPS[0], OVN_PORT).to_string();
        site.until_listed(&target, "both nodes", |list| list.len() == 2).await;
        let of_port =
            |port: u16| tree.listeners.iter().find(|it| it.port == u32::from(port)).unwrap().id.clone();
        let (id, plain) = (of_port(OVN_PORT), of_port(PLAIN_PORT));

        let refused = read(&site.tenant, &plain).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains("OVN carries"), "{refused:?}");

        let mut stream = begun(&site.tenant, &id, &c1).await;
        assert!(ask(&c1, at(VIPS[0], OVN_PORT), REQUESTS).await.all_answered());
        let shown = entries(&mut stream, REQUESTS).await;
        let backends: Vec<&str> = tree.pools[0].backends.iter().map(|backend| backend.id.as_str()).collect();
        let pool = &tree.pools[0].pool.as_ref().unwrap().id;
        for entry in &shown {
            assert_eq!(&entry.pool_id, pool, "{entry:?}");
            assert_eq!((&entry.listener_id, entry.reason.as_str()), (&id, "closed"), "{entry:?}");
            assert!(entry.client.starts_with("10.0.0.11:"), "{entry:?}");
            assert!(backends.contains(&entry.backend_id.as_str()), "{entry:?}");
            assert_eq!((entry.selection.as_str(), entry.tries), ("round_robin", 1), "{entry:?}");
            assert!(entry.bytes_out > 0 && entry.duration.is_some(), "{entry:?}");
        }

        // Nobody listens any more: a client is refused after each backend was tried.
        drop(servers);
        assert!(!ask(&c1, at(VIPS[0], OVN_PORT), 1).await.all_answered());
        let shown = entries(&mut stream, 1).await;
        assert_eq!((shown[0].reason.as_str(), shown[0].backend_id.as_str()), ("no_backend", ""), "{shown:?}");
        assert_eq!(&shown[0].pool_id, pool, "{shown:?}");

        // A backend that accepts and never closes: a client that has closed its half is reset.
        let _silent = serve_nothing(&b1);
        let client = c1.tcp_connect(at(VIPS[0], OVN_PORT), PATIENCE).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let ended = std::io::Read::read(&mut &client, &mut [0]).unwrap_err();
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{ended}");
        let shown = entries(&mut stream, 1).await;
        assert_eq!(shown[0].reason, "half_closed", "{shown:?}");

        let request = v1::DeleteLoadBalancerRequest { id: id_of(&tree), cascade: true, ..Default::default() };
        site.tenant.client.clone().delete_load_balancer(request).await.unwrap();
        let ended = loop {
            match next(&mut stream).await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends without a reason"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::NotFound, "{ended:?}");
        site.close();
    })
    .await;
}
