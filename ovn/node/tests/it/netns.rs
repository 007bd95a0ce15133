//! Namespaces, with `ip netns` and the mount table as second opinion.

use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fiberlb_node::netns::{Netns, NetnsDir, NetnsError};

use crate::world::{dir, here, ip, run, world};

fn names() -> Vec<String> {
    let listed = ip(&["netns", "list"]);
    let mut names: Vec<String> = listed.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[test]
fn names_come_and_go_as_ip_sees_them() {
    world("names_come_and_go_as_ip_sees_them", async || {
        let dir = dir();
        assert_eq!(dir.list().unwrap(), Vec::<String>::new());
        let made = dir.create("a").unwrap();
        assert_eq!(names(), ["t-a"]);
        let link = run("ip", &["netns", "exec", "t-a", "readlink", "/proc/self/ns/net"]);
        assert_eq!(link.trim(), format!("net:[{}]", made.key().inode));
        assert_eq!(dir.open("a").unwrap().key(), made.key());
        assert!(matches!(dir.create("a"), Err(NetnsError::Exists { .. })));
        assert_eq!(dir.open("a").unwrap().key(), made.key(), "the one that was there stays");

        run("ip", &["netns", "add", "t-b"]);
        assert_eq!(dir.list().unwrap(), ["a", "b"]);
        assert_ne!(dir.open("b").unwrap().key(), made.key());
        dir.delete("a").unwrap();
        assert_eq!(names(), ["t-b"]);
        dir.delete("b").unwrap();
        assert_eq!(names(), Vec::<String>::new());
        assert!(matches!(dir.delete("a"), Err(NetnsError::Missing { .. })));
        assert!(matches!(dir.open("a"), Err(NetnsError::Missing { .. })));
    });
}

#[test]
fn names_of_others_are_not_seen() {
    world("names_of_others_are_not_seen", async || {
        run("ip", &["netns", "add", "qrouter-1"]);
        let (ours, theirs) = (dir(), NetnsDir::new("/run/netns", "other-").unwrap());
        theirs.create("a").unwrap();
        ours.create("a").unwrap();
        assert_eq!(ours.list().unwrap(), ["a"]);
        ours.delete("a").unwrap();
        assert!(matches!(ours.delete("qrouter-1"), Err(NetnsError::Missing { .. })));
        assert_eq!(names(), ["other-a", "qrouter-1"]);
    });
}

#[test]
fn the_directory_is_mounted_and_shared_once() {
    world("the_directory_is_mounted_and_shared_once", async || {
        let mounts = || {
            let table = run("cat", &["/proc/thread-self/mountinfo"]);
            table.lines().filter(|line| line.contains(" /run/netns ")).map(str::to_owned).collect::<Vec<_>>()
        };
        // The machine itself may have one, which the world's own hides.
        let hidden = mounts().len();
        for name in ["a", "b", "c"] {
            dir().create(name).unwrap();
            assert_eq!(mounts().len(), hidden + 1, "{:?}", mounts());
            assert!(mounts()[hidden].contains(" shared:"), "{:?}", mounts());
        }
    });
}

#[test]
fn what_a_killed_maker_left_behind_is_named_replaced_and_deleted() {
    world("what_a_killed_maker_left_behind_is_named_replaced_and_deleted", async || {
        let dir = dir();
        dir.create("a").unwrap();
        let left = |name| std::fs::write(dir.file(name).unwrap(), []).unwrap();
        left("b");
        left("c");
        assert_eq!(dir.list().unwrap(), ["a", "b", "c"]);
        assert!(matches!(dir.open("b"), Err(NetnsError::NotNamespace { .. })));
        let made = dir.create("b").unwrap();
        assert_eq!(dir.open("b").unwrap().key(), made.key());
        dir.delete("c").unwrap();
        assert_eq!(dir.list().unwrap(), ["a", "b"]);
    });
}

#[test]
fn what_outlives_its_mount_is_replaced_also_without_the_right_to_override_permissions() {
    world("what_outlives_its_mount_is_replaced_also_without_the_right_to_override_permissions", async || {
        let dir = dir();
        drop(dir.create("a").unwrap());
        // As after the end of a container, whose files stay and whose mounts go.
        run("umount", &["/run/netns/t-a"]);
        let content =
            run("setpriv", &["--bounding-set=-dac_override,-dac_read_search", "cat", "/run/netns/t-a"]);
        assert_eq!(content, "", "it can be read");
        assert!(matches!(dir.open("a"), Err(NetnsError::NotNamespace { .. })));
        dir.create("a").unwrap();
    });
}

#[test]
fn the_thread_comes_back_also_after_a_panic() {
    world("the_thread_comes_back_also_after_a_panic", async || {
        let (home, other) = (here(), Netns::unnamed().unwrap());
        assert_eq!(other.run(here).unwrap(), other.key().inode);
        assert_eq!(here(), home);
        let third = Netns::unnamed().unwrap();
        let nested = other.run(|| (third.run(here).unwrap(), here())).unwrap();
        assert_eq!(nested, (third.key().inode, other.key().inode));
        let panicked = catch_unwind(AssertUnwindSafe(|| other.run(|| panic!("on purpose"))));
        assert!(panicked.is_err());
        assert_eq!(here(), home);
    });
}

#[test]
fn what_is_no_namespace_is_not_entered() {
    world("what_is_no_namespace_is_not_entered", async || {
        let home = here();
        assert!(Netns::open(Path::new("/proc/self/status")).is_err());
        // A namespace, but not of networks.
        let mounts = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap();
        assert!(mounts.run(|| ()).is_err());
        assert_eq!(here(), home);
    });
}

#[test]
fn a_socket_stays_in_its_namespace_also_when_the_name_is_gone() {
    world("a_socket_stays_in_its_namespace_also_when_the_name_is_gone", async || {
        let netns = dir().create("a").unwrap();
        // The loopback is down, so that a bind shows where the socket is: of two on one port both succeed.
        let bind = || UdpSocket::bind("0.0.0.0:5000");
        let inside = netns.run(bind).unwrap().unwrap();
        let outside = bind().unwrap();
        dir().delete("a").unwrap();
        let again = netns.run(bind).unwrap();
        assert_eq!(again.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
        drop((inside, outside));
        assert!(netns.run(bind).unwrap().is_ok());
    });
}

#[test]
fn a_setting_is_the_namespaces_own() {
    world("a_setting_is_the_namespaces_own", async || {
        let (a, b) = (dir().create("a").unwrap(), dir().create("b").unwrap());
        let settings =
            ["net.ipv4.tcp_migrate_req", "net.ipv4.ip_nonlocal_bind", "net.ipv6.conf.default.accept_dad"];
        for setting in settings {
            let value = if a.sysctl(setting).unwrap() == "0" { "1" } else { "0" };
            a.set_sysctl(setting, value).unwrap();
            assert_eq!(a.sysctl(setting).unwrap(), value);
            for other in [&b, &Netns::current().unwrap()] {
                assert_ne!(other.sysctl(setting).unwrap(), value, "{setting}");
            }
            let file = format!("/proc/sys/{}", setting.replace('.', "/"));
            let cat = |netns: &str| run("ip", &["netns", "exec", netns, "cat", &file]);
            assert_eq!(cat("t-a").trim(), value);
            assert_ne!(cat("t-b").trim(), value);
        }
        let none = a.set_sysctl("net.ipv4.no_such_thing", "1");
        assert!(matches!(none, Err(NetnsError::NoSetting { .. })), "{none:?}");
        let refused = a.set_sysctl("net.ipv4.tcp_migrate_req", "nonsense");
        assert!(matches!(refused, Err(NetnsError::Refused { .. })), "{refused:?}");
    });
}

#[test]
fn other_threads_are_not_moved() {
    world("other_threads_are_not_moved", async || {
        let (home, other) = (here(), Netns::unnamed().unwrap());
        // Started before: it is asked where it is while this thread is inside.
        let (ask, asked) = std::sync::mpsc::channel::<std::sync::mpsc::Sender<u64>>();
        let thread = std::thread::spawn(move || asked.iter().for_each(|answer| answer.send(here()).unwrap()));
        let seen = other.run(|| {
            let (answer, answered) = std::sync::mpsc::channel();
            ask.send(answer).unwrap();
            answered.recv().unwrap()
        });
        assert_eq!(seen.unwrap(), home);
        drop(ask);
        thread.join().unwrap();
    });
}
