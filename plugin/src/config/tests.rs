use std::path::Path;

use super::*;

#[test]
fn it_refuses_to_listen_elsewhere_without_tls_unless_told_so() {
    let overrides = Overrides { listen: Some("0.0.0.0:9630".parse().unwrap()), ..Overrides::default() };
    let error = Config::load(overrides.clone()).unwrap_err().to_string();
    assert!(error.contains("api.listen is 0.0.0.0:9630") && error.contains("--insecure"), "{error}");
    assert!(Config::load(Overrides { insecure: true, ..overrides }).is_ok());
}

#[test]
fn the_command_line_goes_over_the_file_and_the_file_over_the_defaults() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[api]\nlisten = \"127.0.0.1:1\"\n[store]\npath = \"a.redb\"\n").unwrap();
    let overrides = Overrides {
        config: Some(file.path().to_owned()),
        store: Some("b.redb".into()),
        ..Overrides::default()
    };
    let config = Config::load(overrides).unwrap();
    assert_eq!(config.api.listen.port(), 1);
    assert_eq!(config.store.path, Path::new("b.redb"));
    assert_eq!(config.metrics, MetricsSettings::default());
}

#[test]
fn a_store_is_a_file_or_a_cluster() {
    let with = |path: &str| StoreSettings { path: path.into(), ..StoreSettings::default() };
    assert_eq!(with("/a/b").members(), None);
    assert_eq!(with("chainfire://a:1,[::1]:2,c").members().unwrap(), ["a:1", "[::1]:2", "c"]);
    let wrong = [
        (with("etcd://a"), "chainfire://HOST:PORT,HOST:PORT,... for a cluster of ChainFire or etcd"),
        (StoreSettings { user: Some("u".into()), ..with("/a") }, "for a cluster"),
        (StoreSettings { user: Some("u".into()), ..with("chainfire://a") }, "password_file"),
        (StoreSettings { tls_key: Some("k".into()), ..with("chainfire://a") }, "belong together"),
        (
            StoreSettings {
                user: Some("u".into()),
                password_file: Some("p".into()),
                ..with("chainfire://a")
            },
            "in clear",
        ),
        (StoreSettings { timeout_ms: 0, ..with("chainfire://a") }, "timeout_ms"),
    ];
    for (store, words) in wrong {
        let error = store.check().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn an_error_names_key_value_and_reason() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[api]\nlisen = \"127.0.0.1:1\"\n").unwrap();
    let error = format!(
        "{:#}",
        Config::load(Overrides { config: Some(file.path().to_owned()), ..Overrides::default() }).unwrap_err()
    );
    assert!(error.contains("lisen") && error.contains("listen"), "{error}");
    let endpoints = Overrides { northbound: vec!["tls:host:6641".to_owned()], ..Overrides::default() };
    let error = format!("{:#}", Config::load(endpoints).unwrap_err());
    assert!(error.contains("tls:host:6641"), "{error}");
}

#[test]
fn certificates_and_ssl_endpoints_go_together() {
    let load = |endpoints: &[&str], files: usize| {
        let file = |number| (number < files).then(|| PathBuf::from("x.pem"));
        Config::load(Overrides {
            northbound: endpoints.iter().map(|text| (*text).to_owned()).collect(),
            northbound_tls_ca: file(0),
            northbound_tls_certificate: file(1),
            northbound_tls_key: file(2),
            ..Overrides::default()
        })
    };
    let config = load(&["ssl:a:6641", "ssl:b:6641"], 3).unwrap();
    assert!(config.northbound.tls().is_some() && config.endpoints().unwrap().len() == 2);
    assert!(load(&["tcp:a:6641"], 0).unwrap().northbound.tls().is_none());
    for (endpoint, files, words) in [
        ("ssl:a:6641", 0, "ssl:a:6641, and there are no certificates"),
        ("ssl:a:6641", 2, "belong together"),
        ("tcp:a:6641", 3, "for ssl: endpoints"),
    ] {
        let error = load(&["unix:/x", endpoint], files).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_load_balancer_fits_in_a_message() {
    let load = |text: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(Overrides { config: Some(file.path().to_owned()), ..Overrides::default() })
    };
    assert!(load("northbound.max_message_bytes = 33554432").is_ok());
    for (text, words) in [
        ("northbound.max_message_bytes = 1000", "give at least 33554432"),
        ("limits.vips_bytes_per_load_balancer = 33554433", "give at least four times as much"),
        ("limits.vips_bytes_per_load_balancer = 100000000", "northbound.max_message_bytes is 134217728"),
    ] {
        let error = load(text).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}
