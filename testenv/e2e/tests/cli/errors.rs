//! Refusals: the flag or field at fault, and the exit code.

use fiberlb_lab::can_run;

use crate::fiberlb;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn refusals_name_the_flag_or_the_field() {
    if !can_run("refusals_name_the_flag_or_the_field") {
        return;
    }
    let site = Site::start("cli-errors").await;
    site.run("lb create --name web --network sw0").await.ok();
    site.run("lb create --name first --network sw0 --vip-address 10.0.0.99 --wait").await.ok();
    site.run("pool create --lb web --name app --protocol tcp").await.ok();
    site.run("listener create --lb web --protocol tcp --port 80 --default-pool app").await.ok();
    // What is typed, and how each line on standard error begins.
    let cases: [(&str, &[&str]); 9] = [
        ("listener create --lb web --protocol tcp --port 80", &["--port: "]),
        ("listener create --lb web --protocol udp --port 80 --default-pool app", &["--default-pool: "]),
        (
            "listener create --lb web --protocol tcp --port 81 --connection-limit -7",
            &["--connection-limit: "],
        ),
        (
            "backend create --pool app --address nonsense --port 1 --weight 300",
            &["--address: ", "--weight: "],
        ),
        ("backend create --pool app --address 10.0.0.1 --port 1 --weight 300", &["--weight: "]),
        ("lb create --network sw0 --vip-address 10.0.0.99", &["--vip-address: "]),
        ("lb create --network nowhere", &["--network: "]),
        ("lb create --network bare", &["--vip-subnet: "]),
        ("lb update web --name x --etag stale", &["refused: "]),
    ];
    for (typed, expected) in cases {
        let lines = site.run(typed).await.failed(1);
        let fits = |(line, begin): (&String, &&str)| line.starts_with(&format!("error: {begin}"));
        assert!(lines.len() == expected.len() && lines.iter().zip(expected).all(fits), "{typed}: {lines:?}");
    }
    let document = "load_balancer: {name: b, network: sw0}\nlisteners: [{protocol: TCP, port: 0}]\n";
    let lines = site.apply(document, &[]).await.failed(1);
    assert!(lines[0].starts_with("error: listeners[0].port: "), "{lines:?}");
    let lines = site.apply(&document.replace("port:", "prot:"), &[]).await.failed(2);
    assert!(lines[0].contains("listeners[0].prot: unknown key"), "{lines:?}");
    assert_eq!(site.run("lb list -o json").await.json().as_array().unwrap().len(), 2);
    site.run("lb frobnicate").await.failed(2);
    let lines = fiberlb::run(&site.plugin.metrics_url(), &["lb", "list"]).await.failed(1);
    assert!(lines[0].contains("not FiberLB's API"), "{lines:?}");
    site.lab.close().unwrap();
}

#[tokio::test]
async fn without_a_plugin_it_says_where_it_looked() {
    // Port 1 is tcpmux, which nobody runs any more.
    let lines = fiberlb::run("http://127.0.0.1:1", &["lb", "list"]).await.failed(1);
    assert!(lines[0].contains("cannot reach the FiberLB plugin at http://127.0.0.1:1"), "{lines:?}");
}
