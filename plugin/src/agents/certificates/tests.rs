use std::os::unix::fs::PermissionsExt as _;

use clap::Parser;
use webpki::EndEntityCert;

use super::*;
use crate::agents::identity::{Holder, check_api_certificate, holder_of};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: AgentCaCommand,
}

fn run(line: &[&str]) -> Result<Vec<PathBuf>, CertificateError> {
    Line::try_parse_from([&["agent-ca"], line].concat()).unwrap().command.write()
}

fn der(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

#[test]
fn it_makes_a_ca_a_server_and_nodes() {
    let temporary = tempfile::tempdir().unwrap();
    let (ca, node) = (temporary.path().join("ca"), temporary.path().join("n1"));
    let (ca_text, node_text) = (ca.to_str().unwrap(), node.to_str().unwrap());
    let made =
        run(&["init", ca_text, "--name", "plugin.example", "--name", "10.0.0.1", "--name", "::1"]).unwrap();
    assert_eq!(made.len(), 5);
    assert!(revoked(&ca).is_empty());
    run(&["issue", "--ca", ca_text, "node-1", node_text]).unwrap();
    for (path, mode) in
        [(ca.join("ca.key"), 0o600), (node.join("node.key"), 0o600), (node.join("ca.pem"), 0o644)]
    {
        // The umask may take more away.
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !mode, 0, "{path:?}");
    }
    assert_eq!(holder_of(&der(&node.join("node.pem"))).unwrap(), Holder::Node("node-1".to_owned()));
    assert_eq!(holder_of(&der(&ca.join("server.pem"))).unwrap(), Holder::Plugin);
    let server = der(&ca.join("server.pem"));
    let server = EndEntityCert::try_from(&server).unwrap();
    assert_eq!(server.valid_dns_names().collect::<Vec<_>>(), ["plugin.example"]);
    assert_eq!(std::fs::read(ca.join("ca.pem")).unwrap(), std::fs::read(node.join("ca.pem")).unwrap());
}

#[test]
fn a_certificate_of_the_api_is_nobodys_to_nodes_and_plugins() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    run(&["init", &text("ca"), "--name", "plugin.example"]).unwrap();
    run(&["init", &text("other"), "--name", "plugin.example"]).unwrap();
    run(&["api", "--ca", &text("ca"), "--name", "api.example", &text("api")]).unwrap();
    run(&["issue", "--ca", &text("ca"), "node-1", &text("node")]).unwrap();
    let api = der(&path("api/server.pem"));
    assert!(holder_of(&api).is_err());
    assert_eq!(EndEntityCert::try_from(&api).unwrap().valid_dns_names().collect::<Vec<_>>(), ["api.example"]);
    let check = |certificate: &str| check_api_certificate(Some(&path(certificate)), Some(&path("ca/ca.pem")));
    // One CA for both does no harm with this one; nor does one that the other CA made.
    check("api/server.pem").unwrap();
    check("other/server.pem").unwrap();
    for identity in ["ca/server.pem", "node/node.pem"] {
        let error = check(identity).unwrap_err().to_string();
        assert!(error.contains("agent-ca api") && error.contains(identity), "{error}");
    }
    check_api_certificate(Some(&path("ca/server.pem")), None).unwrap();
    // Nothing is issued by a CA whose key others can read.
    std::fs::set_permissions(path("ca/ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = run(&["issue", "--ca", &text("ca"), "node-2", &text("node-2")]).unwrap_err().to_string();
    assert!(error.contains("ca.key has mode 0644") && error.contains("run chmod 6"), "{error}");
}

#[test]
fn nothing_is_overwritten_and_nothing_half_stays() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = temporary.path().to_str().unwrap();
    std::fs::write(temporary.path().join("server.pem"), "mine").unwrap();
    let error = run(&["init", dir, "--name", "a"]).unwrap_err();
    assert!(error.to_string().contains("server.pem exists"), "{error}");
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["server.pem"]);
    assert_eq!(std::fs::read_to_string(temporary.path().join("server.pem")).unwrap(), "mine");
}

#[test]
fn errors_say_what_is_wrong() {
    let temporary = tempfile::tempdir().unwrap();
    let (a, b) = (temporary.path().join("a"), temporary.path().join("b"));
    let (a_text, b_text) = (a.to_str().unwrap(), b.to_str().unwrap());
    let error = run(&["issue", "--ca", a_text, "n", b_text]).unwrap_err().to_string();
    assert!(error.contains("a/ca.pem"), "{error}");
    let error = run(&["init", a_text, "--name", "not a name"]).unwrap_err().to_string();
    assert!(error.contains("not a name"), "{error}");
    run(&["init", a_text, "--name", "x"]).unwrap();
    let error = run(&["issue", "--ca", a_text, "no/de", b_text]).unwrap_err().to_string();
    assert!(error.contains("no/de"), "{error}");
    assert!(!b.exists());

    run(&["init", b_text, "--name", "x"]).unwrap();
    std::fs::copy(b.join("ca.key"), a.join("ca.key")).unwrap();
    let error = run(&["server", "--ca", a_text, "--name", "x", temporary.path().join("c").to_str().unwrap()]);
    assert!(error.unwrap_err().to_string().contains("not the key of ca.pem"));
    std::fs::write(a.join("ca.key"), "nothing").unwrap();
    let error = run(&["issue", "--ca", a_text, "n", b_text]).unwrap_err().to_string();
    assert!(error.contains("a/ca.key cannot be used"), "{error}");
}

#[test]
fn the_validity_is_what_was_asked_for() {
    let soon = params("x", 2);
    let days = (soon.not_after - soon.not_before).whole_days();
    assert_eq!(days, 2);
    assert!(Line::try_parse_from(["agent-ca", "init", "d", "--name", "x", "--days", "0"]).is_err());
}

/// Serial numbers on the list of a CA.
fn revoked(ca: &Path) -> Vec<Vec<u8>> {
    let der = rustls_pki_types::CertificateRevocationListDer::from_pem_file(ca.join("crl.pem")).unwrap();
    let list = webpki::BorrowedCertRevocationList::from_der(&der).unwrap();
    (&list).into_iter().map(|entry| entry.unwrap().serial_number.to_owned()).collect()
}

#[test]
fn revoked_certificates_stay_on_the_list_and_only_those_of_the_ca_get_there() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let text = |name: &str| path(name).to_str().unwrap().to_owned();
    for ca in ["ca", "other"] {
        run(&["init", &text(ca), "--name", "a"]).unwrap();
    }
    for (ca, node) in [("ca", "n1"), ("ca", "n2"), ("other", "n3")] {
        run(&["issue", "--ca", &text(ca), node, &text(node)]).unwrap();
    }
    let serial = |node: &str| {
        let der = der(&path(node).join("node.pem"));
        EndEntityCert::try_from(&der).unwrap().serial().to_vec()
    };
    std::fs::remove_file(path("ca").join("crl.pem")).unwrap();
    run(&["revoke", "--ca", &text("ca")]).unwrap();
    assert!(revoked(&path("ca")).is_empty(), "of a CA that had none");
    let (first, second) = (text("n1/node.pem"), text("n2/node.pem"));
    assert_eq!(run(&["revoke", "--ca", &text("ca"), &first]).unwrap(), [path("ca").join("crl.pem")]);
    assert_eq!(revoked(&path("ca")), [serial("n1")]);
    let hex: Vec<String> = serial("n2").iter().map(|byte| format!("{byte:02X}")).collect();
    run(&["revoke", "--ca", &text("ca"), "--serial", &hex.join(":")]).unwrap();
    run(&["revoke", "--ca", &text("ca"), &first, &second]).unwrap();
    let both = revoked(&path("ca"));
    assert!(both.len() == 2 && both.contains(&serial("n1")) && both.contains(&serial("n2")), "{both:?}");

    let before = std::fs::read(path("ca").join("crl.pem")).unwrap();
    let foreign = run(&["revoke", "--ca", &text("ca"), &text("n3/node.pem")]).unwrap_err().to_string();
    assert!(foreign.contains("n3") && foreign.contains("not issued by this CA"), "{foreign}");
    for wrong in ["", "x1", "123", &"00".repeat(22)] {
        let refused = run(&["revoke", "--ca", &text("ca"), "--serial", wrong]);
        assert!(matches!(refused, Err(CertificateError::Serial(_))), "{wrong}: {refused:?}");
    }
    assert_eq!(std::fs::read(path("ca").join("crl.pem")).unwrap(), before);
    std::fs::copy(path("ca").join("crl.pem"), path("other").join("crl.pem")).unwrap();
    let mixed = run(&["revoke", "--ca", &text("other"), &text("n3/node.pem")]).unwrap_err().to_string();
    assert!(mixed.contains("the list of another CA"), "{mixed}");
}
