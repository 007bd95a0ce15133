//! Completions by bash, with names that the server knows.

use std::time::{Duration, Instant};

use fiberlb_proto::v1::Node;

use crate::mock::{Mock, bare, finish};

/// A load balancer with one pool and two backends, an unnamed listener, and one whose name a shell would carry out.
async fn site() -> Mock {
    let mock = Mock::start().await;
    for args in [
        "lb create --name web --network tenant-a",
        "lb create --name $(reboot) --network tenant-b",
        "pool create --lb web --name app --protocol tcp",
        "backend create --pool web/app --address 10.0.1.11 --port 8080",
        "backend create --pool web/app --address fd00::1 --port 8080",
        "listener create --lb web --protocol tcp --port 80",
        "hc create --pool web/app --type tcp",
    ] {
        mock.run(&args.split(' ').collect::<Vec<_>>()).await.ok();
    }
    mock.world.set_nodes(vec![Node { id: "node-1".to_owned(), ..Node::default() }]);
    mock
}

/// Candidates that bash has at the end of a line, without what is there already. Words are split as bash does it.
async fn candidates(mock: &Mock, line: &str) -> Vec<String> {
    let script = r#"
        source <(COMPLETE=bash "$FIBERLB")
        COMP_LINE=$1
        shift
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        COMP_TYPE=9
        COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
        word=${COMP_WORDS[COMP_CWORD]}
        if [[ $word == [=:] ]]; then word=; fi
        _fiberlb_complete fiberlb "$word" "" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        words.push(String::new());
        for char in word.chars() {
            let is_break = |c: char| c == ':' || c == '=';
            let starts = words
                .last()
                .is_some_and(|last| !last.is_empty() && (is_break(char) || last.ends_with(is_break)));
            if starts {
                words.push(String::new());
            }
            words.last_mut().unwrap().push(char);
        }
    }
    let mut command = std::process::Command::new("bash");
    let fiberlb = bare(&[]).get_program().to_owned();
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("FIBERLB", fiberlb);
    command.envs(mock.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["--norc", "-c", script, "bash", line]).args(words);
    let ran = finish(command).await;
    ran.ok().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_names_level_by_level() {
    let mock = site().await;
    let odd = mock.run(&["lb", "get", "$(reboot)", "-o", "jsonpath=$.id"]).await.ok().trim().to_owned();
    let web = |line: &'static str| candidates(&mock, line);
    let mut balancers = web("fiberlb tree ").await;
    balancers.retain(|word| !word.starts_with('-'));
    balancers.sort();
    let mut expected = vec!["web".to_owned(), odd];
    expected.sort();
    assert_eq!(balancers, expected, "a name that the shell would carry out goes by its id");
    assert_eq!(web("fiberlb tree w").await, ["web"]);
    assert_eq!(web("fiberlb wait w").await, ["web"]);
    assert_eq!(web("fiberlb backend get w").await, ["web/"]);
    assert_eq!(web("fiberlb backend get web/").await, ["web/app/"]);
    assert_eq!(
        web("fiberlb backend get web/app/").await,
        ["web/app/10.0.1.11:8080", "web/app/[fd00::1]:8080"]
    );
    assert_eq!(
        web("fiberlb backend get web/app/10.0.1.11:").await,
        ["8080"],
        "bash keeps what is before the colon"
    );
    assert_eq!(web("fiberlb health show web/app/10.0.1.11:80").await, ["8080"]);
    assert_eq!(web("fiberlb hc get web/").await, ["web/app"]);
    assert_eq!(web("fiberlb lb delete web w").await, ["web"]);
    assert_eq!(web("fiberlb listener get web/t").await, ["web/tcp:80"]);
    assert_eq!(web("fiberlb pool create --lb w").await, ["web"]);
    assert_eq!(web("fiberlb pool create --load-balancer=w").await, ["web"]);
    assert_eq!(web("fiberlb listener create --lb web --default-pool ").await, ["app"]);
    assert_eq!(web("fiberlb listener update web/80 --default-pool a").await, ["app"]);
    assert_eq!(web("fiberlb node show ").await.first().unwrap(), "node-1");
    assert_eq!(web("fiberlb lb create --network tenant-a").await, ["tenant-a"]);
}

#[tokio::test]
async fn an_endpoint_that_is_typed_is_the_one_that_is_asked() {
    let mock = site().await;
    let endpoint = mock.command(&[]).get_envs().find_map(|(_, value)| value).unwrap().to_owned();
    let elsewhere = Mock::start().await;
    let line = format!("fiberlb --endpoint {} tree w", endpoint.to_str().unwrap());
    assert_eq!(candidates(&elsewhere, &line).await, ["web"]);
}

#[tokio::test]
async fn commands_and_values_are_completed_without_a_server_and_nothing_is_said_of_it() {
    // A port that takes connections and never answers.
    let silent = std::net::TcpListener::bind((LOOPBACK, 0)).unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let nobody = |args: &[&str], index: &str| {
        let mut command = bare(args);
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        command.env("FIBERLB_ENDPOINT", &endpoint);
        finish(command)
    };
    let began = Instant::now();
    let ran = nobody(&["--", "fiberlb", "tree", "w"], "2").await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
    drop(silent);
    assert_eq!(nobody(&["--", "fiberlb", "tr"], "1").await.ok(), "tree");
    for (typed, whole) in [("tc", "tcp"), ("TC", "TCP")] {
        let words = ["--", "fiberlb", "pool", "create", "--protocol", typed];
        assert_eq!(nobody(&words, "4").await.ok(), whole);
    }
}

/// An address at which nobody else listens.
const LOOPBACK: &str = "127.18.51.7";

#[tokio::test]
async fn scripts_without_names_are_still_there() {
    let mock = Mock::start().await;
    for shell in ["bash", "zsh", "fish"] {
        assert!(mock.run(&["completions", shell]).await.ok().contains("loadbalancer"), "{shell}");
    }
}
