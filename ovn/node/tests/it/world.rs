//! A private world for one test: a thread with a mount and network namespace of its own and an empty `/run`. Processes that
//! it starts are in there too. The kernel takes all of it away when thread and processes end, however they end.

use std::io::Write as _;
use std::thread;
use std::time::Duration;

use fiberlb_node::netlink::{IfName, Mac};
use fiberlb_node::netns::{Netns, NetnsDir, RUN_NETNS};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use fiberlb_ovn_release::Release;

/// The release whose programs the tests run.
pub(crate) fn release() -> &'static Release {
    Release::chosen().unwrap()
}

/// Time limit of everything that a test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Runs a test in a world of its own, or reports that it was skipped.
pub(crate) fn world(test: &'static str, body: impl AsyncFnOnce() + Send + 'static) {
    let inside = move || {
        if let Err(error) = leave() {
            return skip(test, &format!("no private namespaces: {error}"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(body());
    };
    let thread = thread::Builder::new().name(test.to_owned()).spawn(inside).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Reports a skipped test, bypassing the capture of the test harness.
pub(crate) fn skip(test: &str, reason: &str) {
    // One write, so that lines of parallel tests stay whole. Nothing can be done if standard error is closed.
    let _ = std::io::stderr().write_all(format!("SKIPPED {test}: {reason}\n").as_bytes());
}

fn leave() -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    mount(NOTHING, "/", NOTHING, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NOTHING)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), NOTHING)?;
    Ok(())
}

/// The namespaces of this test.
pub(crate) fn dir() -> NetnsDir {
    NetnsDir::new(RUN_NETNS, "t-").unwrap()
}

/// A program's standard output; it must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = release().command(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Output of `ip -j`, always a list.
pub(crate) fn ip(arguments: &[&str]) -> Vec<Value> {
    let text = run("ip", &[&["-j"], arguments].concat());
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
}

/// Waits until something holds, which another process or the kernel brings about.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(LONG, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "not seen: {what}");
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn mac(last: u8) -> Mac {
    Mac([0x02, 0, 0, 0, 0, last])
}

/// The inode of the calling thread's network namespace.
pub(crate) fn here() -> u64 {
    Netns::current().unwrap().key().inode
}
