//! Kernel parameters of one namespace (sysctl(8), `net.*`).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;

use super::{Netns, NetnsError};

/// Length limit of a value, in bytes.
const MAX_VALUE: u64 = 4096;

impl Netns {
    /// Sets a `net.*` parameter of this namespace, such as `net.ipv4.tcp_migrate_req` to `1`. `/proc/sys/net` shows each thread its
    /// own namespace, so the file is opened inside.
    ///
    /// A dot in a part of the name (an interface `eth0.1`) is written as a slash, as sysctl(8) does.
    ///
    /// # Errors
    /// [`NetnsError::Setting`] for any other name, [`NetnsError::NoSetting`] if the kernel does not have it, otherwise
    /// [`NetnsError::Refused`].
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), NetnsError> {
        let path = path(name)?;
        let opened = self.run(|| OpenOptions::new().write(true).open(path)).flatten();
        let mut file = opened.map_err(|error| cannot(name, error))?;
        file.write_all(value.as_bytes()).map_err(|error| cannot(name, error))
    }

    /// Reads a `net.*` parameter of this namespace, without the trailing newline.
    ///
    /// # Errors
    /// As [`Netns::set_sysctl`].
    pub fn sysctl(&self, name: &str) -> Result<String, NetnsError> {
        let path = path(name)?;
        let opened = self.run(|| File::open(path)).flatten();
        let mut value = String::new();
        let read = opened.and_then(|file| file.take(MAX_VALUE).read_to_string(&mut value));
        read.map_err(|error| cannot(name, error))?;
        value.truncate(value.trim_end().len());
        Ok(value)
    }
}

fn cannot(name: &str, error: io::Error) -> NetnsError {
    match error.kind() {
        io::ErrorKind::NotFound => NetnsError::NoSetting { name: name.to_owned() },
        _ => NetnsError::Refused { what: format!("sysctl {name}"), source: error },
    }
}

/// Path of a parameter. Only those under `net` belong to a namespace.
fn path(name: &str) -> Result<PathBuf, NetnsError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
    let part_is_good = |part: &str| !part.is_empty() && !part.starts_with('/') && part.chars().all(plain);
    let parts: Vec<String> = name.split('.').map(|part| part.replace('/', ".")).collect();
    let is_path = parts.iter().all(|part| part.chars().any(|c| c != '.'));
    if !name.starts_with("net.") || !is_path || !name.split('.').all(part_is_good) {
        return Err(NetnsError::Setting { name: name.to_owned() });
    }
    Ok(parts.iter().fold(PathBuf::from("/proc/sys"), |path, part| path.join(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_one_of_a_namespace() {
        let good = [
            ("net.ipv4.tcp_migrate_req", "/proc/sys/net/ipv4/tcp_migrate_req"),
            ("net.ipv6.conf.all.accept_ra", "/proc/sys/net/ipv6/conf/all/accept_ra"),
            ("net.ipv4.conf.eth0/1.arp_ignore", "/proc/sys/net/ipv4/conf/eth0.1/arp_ignore"),
        ];
        for (name, file) in good {
            assert_eq!(path(name).unwrap(), PathBuf::from(file));
        }
        let bad =
            ["", "net", "net.", "kernel.core_pattern", "net..ipv4", "net.//.kernel", "net./etc", "net.a b"];
        for name in bad {
            assert!(matches!(path(name), Err(NetnsError::Setting { .. })), "{name:?}");
        }
    }
}
