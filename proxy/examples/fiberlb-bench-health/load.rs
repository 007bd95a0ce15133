//! Processes of the benchmark: the backends, and FiberLB's checker.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::bail;
use fiberlb_proxy::health::{
    Check, CheckKind, CheckerConfig, HealthChecker, Http, Report, Target, TargetKey, Targets,
};
use fiberlb_proxy::sockets::{OwnNamespace, SocketFactory};
use uuid::Uuid;

/// Backends that are checked.
pub(crate) const BACKENDS: u32 = 10_000;
/// Seconds from one probe of a backend to the next.
pub(crate) const DELAY: u64 = 4;

/// The kind of check under measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Tcp,
    Http,
}

impl fmt::Display for Probe {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Tcp => "tcp",
            Self::Http => "http",
        })
    }
}

impl std::str::FromStr for Probe {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "http" => Ok(Self::Http),
            _ => bail!("{text} is neither tcp nor http"),
        }
    }
}

/// The address of a backend: all of them are on the loopback.
pub(crate) fn address(number: u32) -> SocketAddr {
    let [_, _, high, low] = number.to_be_bytes();
    ([127, 1, high, low], 80).into()
}

/// Answers every request on every address.
pub(crate) fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:80")?;
    // The default backlog of 128 is short for a burst of checks.
    rustix::net::listen(&listener, 4096)?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept()?;
        // A checker that gave up is its own matter.
        let _ = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = [0; 1024];
    if stream.read(&mut request)? > 0 {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")?;
    }
    Ok(())
}

/// Checks all backends until its standard input ends. Says `ready` when all of them are up.
pub(crate) fn check(probe: Probe) -> anyhow::Result<()> {
    let (sender, verdicts) = channel();
    let checker = HealthChecker::start(CheckerConfig::default(), move |report| {
        if let Report::Verdict(verdict) = report {
            let _ = sender.send(verdict);
        }
    })?;
    checker.apply(targets(probe)?)?;
    for _ in 0..BACKENDS {
        let verdict = verdicts.recv()?;
        if !verdict.up {
            bail!("{} is down: {}", verdict.key.address, verdict.reason);
        }
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn targets(probe: Probe) -> anyhow::Result<Targets> {
    let kind = match probe {
        Probe::Tcp => CheckKind::Tcp,
        Probe::Http => CheckKind::Http(Http::new("GET", "/", None, "200".parse()?)?),
    };
    let delay = Duration::from_secs(DELAY);
    let check = Arc::new(Check::new(kind, delay, delay, 2, 3)?);
    let network = Uuid::nil();
    let target = |number: u32| Target {
        key: TargetKey { network, address: address(number), check: Arc::clone(&check) },
        backends: vec![Uuid::from_u128(u128::from(number))],
        has_route: true,
    };
    let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
    Ok(Targets {
        networks: HashMap::from([(network, factory)]),
        targets: (0..BACKENDS).map(target).collect(),
    })
}
