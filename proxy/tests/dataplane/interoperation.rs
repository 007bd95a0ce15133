//! PROXY protocol with HAProxy and nginx, in front of us and behind us. Without these programs a test is skipped.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::DataplaneSpec,
    health::{Check, CheckKind, CheckerConfig, HealthChecker, Http, Report, Target, TargetKey, Targets},
    proxy_protocol::{Endpoints, Subject, Version, encode},
    sockets::{OwnNamespace, SocketFactory},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    headers::{recorded, recorder},
    world::{NETWORK, World, backend, own_address, patiently},
};

/// A program of another project, until it is dropped.
struct Rival {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Rival {
    /// Starts a program with a file of settings.
    fn start(program: &str, settings: &str, arguments: impl Fn(&Path, &Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new(program);
        command.args(arguments(&file, directory.path())).current_dir(directory.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn();
        Self { child: child.unwrap(), _directory: directory }
    }

    fn haproxy(sections: &str) -> Self {
        let defaults = "defaults\n timeout connect 20s\n timeout client 20s\n timeout server 20s\n";
        let settings = format!("global\n nbthread 1\n{defaults}{sections}");
        Self::start("haproxy", &settings, |file, _| {
            vec!["-db".into(), "-f".into(), file.display().to_string()]
        })
    }

    fn nginx(server: &str) -> Self {
        let settings = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nmaster_process off;\n\
             pid pid;\nerror_log stderr crit;\nevents {{}}\nstream {{ server {{ {server} }} }}\n"
        );
        Self::start("nginx", &settings, |file, directory| {
            let [file, directory] = [file, directory].map(|path| path.display().to_string());
            vec!["-e".into(), "stderr".into(), "-p".into(), directory, "-c".into(), file]
        })
    }
}

/// True if the programs are there; says what is skipped else.
fn has(test: &str, programs: &[&str]) -> bool {
    let is_missing = |program: &&&str| {
        Command::new(program).arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    };
    let missing: Vec<_> = programs.iter().filter(is_missing).collect();
    if !missing.is_empty() {
        println!("SKIPPED {test}: {missing:?} not found");
    }
    missing.is_empty()
}

async fn until_open(address: SocketAddr) {
    let open = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    patiently(open).await;
}

/// Sends a request. Returns the client's address, and the answer of the last server.
async fn ask(address: SocketAddr) -> (SocketAddr, String) {
    let mut stream = patiently(TcpStream::connect(address)).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let client = stream.local_addr().unwrap();
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).unwrap();
    (client, answer.rsplit("\r\n\r\n").next().unwrap().to_owned())
}

fn endpoints(client: SocketAddr, server: SocketAddr) -> String {
    format!("{} {} {} {}", client.ip(), client.port(), server.ip(), server.port())
}

/// Takes headers of both versions and says what it has learnt of them.
fn haproxy_behind(address: SocketAddr) -> Rival {
    Rival::haproxy(&format!(
        "frontend f\n mode http\n bind {address} accept-proxy\n http-request return status 200 content-type text/plain \
         lf-string \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_unique_id]%[fc_pp_authority]\"\n"
    ))
}

fn nginx_behind(address: SocketAddr) -> Rival {
    let said =
        "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_addr $proxy_protocol_server_port ";
    Rival::nginx(&format!("listen {address} proxy_protocol; return '{said}';"))
}

#[tokio::test]
async fn haproxy_and_nginx_understand_what_they_are_sent() {
    if !has("haproxy_and_nginx_understand_what_they_are_sent", &["haproxy", "nginx"]) {
        return;
    }
    for start in [haproxy_behind as fn(SocketAddr) -> Rival, nginx_behind] {
        let server: SocketAddr = (own_address(), 80).into();
        let _rival = start(server);
        until_open(server).await;
        for version in [Version::V1, Version::V2] {
            let vip: SocketAddr = "198.51.100.1:443".parse().unwrap();
            let world = World::with(1, vec![backend(1, server)], |configuration: &mut DataplaneSpec| {
                configuration.pools[0].header = Some(version);
                configuration.listeners[0].frontends = vec![vip];
            });
            let (client, said) = ask(world.await.address).await;
            let rest = said.strip_prefix(&(endpoints(client, vip) + " "));
            let rest = rest.unwrap_or_else(|| panic!("{version:?}: {said:?} is not of {client}"));
            assert!(rest.is_empty() || version == Version::V2 && rest.parse::<Uuid>().is_ok(), "{said:?}");
        }
    }
}

#[tokio::test]
async fn what_haproxy_and_nginx_send_is_what_we_send_byte_for_byte() {
    if !has("what_haproxy_and_nginx_send_is_what_we_send_byte_for_byte", &["haproxy", "nginx"]) {
        return;
    }
    let (server, mut received) = recorder().await;
    let tcp = |name: &str, at: SocketAddr, how: &str| {
        format!("listen {name}\n mode tcp\n bind {at}\n server s {} {how}\n", server.address)
    };
    let [v1, v2, plain, v1_of_nginx]: [SocketAddr; 4] = std::array::from_fn(|_| (own_address(), 80).into());
    let _haproxy = Rival::haproxy(
        &[
            tcp("v1", v1, "send-proxy"),
            tcp("v2", v2, "send-proxy-v2 proxy-v2-options crc32c"),
            tcp("plain", plain, ""),
        ]
        .concat(),
    );
    let _nginx =
        Rival::nginx(&format!("listen {v1_of_nginx}; proxy_pass {}; proxy_protocol on;", server.address));
    for (front, version) in [(v1, Version::V1), (v2, Version::V2), (v1_of_nginx, Version::V1)] {
        until_open(front).await;
        let mut client = patiently(TcpStream::connect(front)).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        client.shutdown().await.unwrap();
        let subject = Subject::Tcp(Endpoints { source: client.local_addr().unwrap(), destination: front });
        let ours = [&encode(version, &subject.into())[..], b"hello"].concat();
        // Those that only saw whether it is open come before.
        let theirs = loop {
            let bytes = recorded(&mut received).await;
            if bytes.ends_with(b"hello") {
                break bytes;
            }
        };
        assert_eq!(theirs.escape_ascii().to_string(), ours.escape_ascii().to_string());
    }
}

#[tokio::test]
async fn what_haproxy_and_nginx_state_is_taken_and_passed_on() {
    if !has("what_haproxy_and_nginx_state_is_taken_and_passed_on", &["haproxy", "nginx"]) {
        return;
    }
    let server: SocketAddr = (own_address(), 80).into();
    let _behind = haproxy_behind(server);
    until_open(server).await;
    for version in [None, Some(Version::V1), Some(Version::V2)] {
        let plain = crate::peers::Server::echo().await;
        let to = if version.is_some() { server } else { plain.address };
        let world = World::with(1, vec![backend(1, to)], |configuration: &mut DataplaneSpec| {
            configuration.pools[0].header = version;
            configuration.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let fronts: [SocketAddr; 4] = std::array::from_fn(|_| (own_address(), 80).into());
        let options = "send-proxy-v2 proxy-v2-options crc32c,unique-id";
        let how = ["send-proxy", "send-proxy-v2", options];
        let section = |(at, how): (&SocketAddr, &str)| {
            let id = "unique-id-format id-of-haproxy";
            format!("listen l{}\n mode tcp\n {id}\n bind {at}\n server s {} {how}\n", at.ip(), world.address)
        };
        let _haproxy = Rival::haproxy(&fronts.iter().zip(how).map(section).collect::<String>());
        let [.., of_nginx] = fronts;
        let _nginx =
            Rival::nginx(&format!("listen {of_nginx}; proxy_pass {}; proxy_protocol on;", world.address));
        for (number, front) in fronts.into_iter().enumerate() {
            until_open(front).await;
            let Some(version) = version else {
                crate::peers::says_and_hears(&mut TcpStream::connect(front).await.unwrap()).await;
                continue;
            };
            let (client, said) = ask(front).await;
            let rest = said.strip_prefix(&(endpoints(client, front) + " "));
            let rest = rest.unwrap_or_else(|| panic!("{number} {version:?}: {said:?} is not of {client}"));
            match (version, number) {
                (Version::V1, _) => assert_eq!(rest, ""),
                (Version::V2, 2) => assert_eq!(rest, "id-of-haproxy"),
                (Version::V2, _) => assert!(rest.parse::<Uuid>().is_ok(), "{rest:?}"),
            }
        }
    }
}

#[tokio::test]
async fn checks_of_haproxy_and_nginx_are_good_with_a_header_and_bad_without() {
    if !has("checks_of_haproxy_and_nginx_are_good_with_a_header_and_bad_without", &["haproxy", "nginx"]) {
        return;
    }
    let (sender, mut verdicts) = tokio::sync::mpsc::unbounded_channel();
    let report = move |report| {
        if let Report::Verdict(verdict) = report {
            let _ = sender.send(verdict);
        }
    };
    let checker = HealthChecker::start(CheckerConfig::default(), report).unwrap();
    let (haproxy, nginx): (SocketAddr, SocketAddr) = ((own_address(), 80).into(), (own_address(), 80).into());
    let _haproxy = haproxy_behind(haproxy);
    let _nginx = nginx_behind(nginx);
    until_open(haproxy).await;
    until_open(nginx).await;
    let patient = Duration::from_secs(5);
    let http = Http::new("GET", "/", None, "200".parse().unwrap()).unwrap();
    let make = |kind: &CheckKind| Check::new(kind.clone(), patient, patient, 1, 1).unwrap();
    let mut targets = Vec::new();
    for kind in [CheckKind::Tcp, CheckKind::Http(http.clone())] {
        for check in [make(&kind).with_header(Version::V1), make(&kind).with_header(Version::V2)] {
            // nginx as it is set here answers no HTTP.
            let addresses = if kind == CheckKind::Tcp { vec![haproxy, nginx] } else { vec![haproxy] };
            targets.extend(addresses.into_iter().map(|address| (address, check.clone(), true)));
        }
    }
    targets.push((haproxy, make(&CheckKind::Http(http)), false));
    let count = targets.len();
    let wanted: Vec<bool> = targets.iter().map(|(.., up)| *up).collect();
    let target = |(number, (address, check, _)): (usize, (SocketAddr, Check, bool))| Target {
        key: TargetKey { network: NETWORK, address, check: Arc::new(check) },
        backends: vec![Uuid::from_u128(number as u128)],
        has_route: true,
    };
    let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
    let targets = targets.into_iter().enumerate().map(target).collect();
    checker.apply(Targets { networks: [(NETWORK, factory)].into(), targets }).unwrap();
    let mut found = vec![None; count];
    for _ in 0..count {
        let verdict = patiently(verdicts.recv()).await.unwrap();
        found[usize::try_from(verdict.backends[0].as_u128()).unwrap()] = Some((verdict.up, verdict.reason));
    }
    let up: Vec<bool> = found.iter().map(|it| it.as_ref().is_some_and(|(up, _)| *up)).collect();
    assert_eq!(up, wanted, "{found:?}");
}
