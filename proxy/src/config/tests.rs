use super::*;

#[test]
fn the_command_line_goes_over_the_file_and_the_file_over_the_defaults() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[node]\nid = \"a\"\nzone = \"z\"\n[dataplane]\nworkers = 3\n").unwrap();
    let overrides = Overrides {
        config: Some(file.path().to_owned()),
        node_id: Some("b".to_owned()),
        ..Overrides::default()
    };
    let config = Config::load(overrides).unwrap();
    assert_eq!((config.node_id().unwrap().as_str(), config.node.zone.as_str()), ("b", "z"));
    assert_eq!(config.workers(), 3);
    assert_eq!(config.plugin, Plugin::default());
}

#[test]
fn nothing_said_is_a_node_named_like_its_host() {
    let config = Config::load(Overrides::default()).unwrap();
    assert_eq!(config.node_id().unwrap(), nix::unistd::gethostname().unwrap().to_str().unwrap());
    assert!(config.workers() > 0);
}

#[test]
fn an_error_names_key_value_and_reason() {
    let plugin = |endpoints: &[&str]| endpoints.iter().map(|text| (*text).to_owned()).collect();
    let key = Some(PathBuf::from("k"));
    let cases = [
        (Overrides { node_id: Some("a b".to_owned()), ..Overrides::default() }, "node.id is \"a b\""),
        (Overrides { zone: Some("a/b".to_owned()), ..Overrides::default() }, "node.zone is \"a/b\""),
        (Overrides { ovs_db: Some("ssl:x:1".to_owned()), ..Overrides::default() }, "ssl:x:1"),
        (Overrides { plugin: plugin(&["http://x:1"]), ..Overrides::default() }, "http://x:1"),
        (
            Overrides { plugin: plugin(&["unix:/a", "unix:/b", "unix:/a"]), ..Overrides::default() },
            "unix:/a twice",
        ),
        (Overrides { plugin: plugin(&["https://x:1"]), ..Overrides::default() }, "plugin.tls_ca"),
        (Overrides { tls_key: key.clone(), ..Overrides::default() }, "belong together"),
        (
            Overrides {
                tls_key: key.clone(),
                tls_ca: key.clone(),
                tls_certificate: key,
                ..Overrides::default()
            },
            "no endpoint is https",
        ),
        (Overrides { workers: Some(0), ..Overrides::default() }, "dataplane.workers is 0"),
    ];
    for (overrides, part) in cases {
        let error = format!("{:#}", Config::load(overrides).unwrap_err());
        assert!(error.contains(part), "{error}");
    }
}
