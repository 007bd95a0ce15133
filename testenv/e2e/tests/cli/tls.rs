//! TLS between the command and the plugin.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fiberlb_lab::plugin::Plugin;
use tempfile::TempDir;

use crate::fiberlb::run;

/// Far above what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes the self-signed certificate `NAME.pem` with the key `NAME.key`, for the address that the plugin listens on.
fn certificate(dir: &Path, name: &str) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(dir).args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
    ]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=fiberlb", "-addext", "subjectAltName=IP:127.0.0.1"]);
    // What is its own CA must not say so: it would be refused as the certificate of a server.
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    let made = openssl.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A plugin with a certificate, and a database that does not exist: it serves its API all the same.
struct Secure {
    child: Child,
    port: u16,
}

impl Secure {
    fn start(dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("setpriv");
        command.current_dir(dir).args(["--pdeathsig", "KILL", "--"]).arg(Plugin::binary().unwrap());
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--metrics-listen", "127.0.0.1:0"]);
        command.args(["--store", "store.redb", "--northbound", "unix:nowhere"]);
        command.args(["--tls-certificate", "plugin.pem", "--tls-key", "plugin.key"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), port }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_plugin_is_believed_by_its_certificate_alone() {
    let missing = ["openssl", "setpriv"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_err());
    if let Some(program) = missing {
        // Past the capture of the test harness.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED the_plugin_is_believed_by_its_certificate_alone: missing: {program}"
        );
        return;
    }
    let dir = TempDir::new().unwrap();
    for name in ["plugin", "other"] {
        certificate(dir.path(), name);
    }
    let plugin = Secure::start(dir.path());
    let (https, port) = (format!("https://127.0.0.1:{}", plugin.port), plugin.port);
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (own, other) = (file("plugin.pem"), file("other.pem"));

    let began = Instant::now();
    let listed = loop {
        let ran = run(&https, &["lb", "list", "--ca-cert", &own]).await;
        if ran.code == 0 {
            break ran.out;
        }
        assert!(began.elapsed() < PATIENCE, "{ran:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(listed, "nothing found\n");

    let wrong_ca = run(&https, &["lb", "list", "--ca-cert", &other]).await.failed(1);
    assert!(wrong_ca[0].contains("certificate"), "{wrong_ca:?}");
    let wrong_name = format!("https://localhost:{port}");
    let wrong_name = run(&wrong_name, &["lb", "list", "--ca-cert", &own]).await.failed(1);
    assert!(wrong_name[0].contains("certificate"), "{wrong_name:?}");
    let plain = format!("http://127.0.0.1:{port}");
    run(&plain, &["lb", "list", "--timeout", "5s"]).await.failed(1);
    let no_ca = run(&https, &["lb", "list"]).await.failed(2);
    assert!(no_ca[0].contains("--ca-cert"), "{no_ca:?}");
    run(&plain, &["lb", "list", "--ca-cert", &own]).await.failed(2);
}
