//! Finding what a lab left behind, on the host and of itself.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// State of the host that a lab must not change.
#[derive(Debug, PartialEq)]
pub(crate) struct Host {
    links: String,
    addresses: String,
    mounts: String,
    named_namespaces: BTreeSet<String>,
}

impl Host {
    pub(crate) fn now() -> Host {
        let ip = |what: &str| {
            let output = Command::new("ip").args(["-brief", what]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
        let named_namespaces = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        Host { links: ip("link"), addresses: ip("address"), mounts, named_namespaces }
    }
}

/// Inode numbers of a lab's namespaces, by which its processes and mounts are told from all others.
pub(crate) struct Trace {
    pid_namespace: u64,
    mount_namespace: u64,
    network_namespaces: BTreeSet<u64>,
}

impl Trace {
    pub(crate) fn of(init: u32, root: &Path) -> Trace {
        let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let named = fs::read_dir(root.join("run/netns")).unwrap();
        let mut network_namespaces: BTreeSet<u64> = named.map(|entry| inode(entry.unwrap().path())).collect();
        network_namespaces.insert(inode(format!("/proc/{init}/ns/net").into()));
        let pid_namespace = inode(format!("/proc/{init}/ns/pid").into());
        let mount_namespace = inode(format!("/proc/{init}/ns/mnt").into());
        Trace { pid_namespace, mount_namespace, network_namespaces }
    }

    /// Processes that are in any of the lab's namespaces.
    pub(crate) fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        pids.filter(|pid| pid.parse::<u32>().is_ok() && self.holds(pid)).collect()
    }

    fn holds(&self, pid: &str) -> bool {
        let is = |namespace: &str, wanted: &dyn Fn(u64) -> bool| {
            fs::metadata(format!("/proc/{pid}/ns/{namespace}")).is_ok_and(|found| wanted(found.ino()))
        };
        is("pid", &|inode| inode == self.pid_namespace)
            || is("mnt", &|inode| inode == self.mount_namespace)
            || is("net", &|inode| self.network_namespaces.contains(&inode))
    }
}

/// Starts a process that holds a lab, and waits until the lab is complete.
pub(crate) fn spawn_holder(name: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fiberlb-lab"));
    let mut holder = command.args(["up", name, "--vms", "2"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let ready = lines.map_while(Result::ok).any(|line| line.starts_with("ready"));
    assert!(ready, "the lab did not start");
    holder
}
