//! The OVN release that tests, demo, chaos and benchmarks run on: the host's own programs, or those of a Debian suite that
//! `testenv/unpack.sh` has unpacked beside the host's.
//!
//! `FIBERLB_OVN` chooses: `host`, `bookworm`, `trixie`, `sid`, or the absolute path of an unpacked release.
//! Unset: the host's, if that is OVN 24.03 or later, else trixie.

mod version;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fmt};

pub use version::Version;

/// The environment variable that chooses the release.
pub const ENV: &str = "FIBERLB_OVN";
/// Parent folder of the releases that `testenv/unpack.sh` unpacks.
const CACHE: &str = "/var/cache/fiberlb/ovn";
/// The suite that is used where neither the environment nor the host decides.
const DEFAULT: &str = "trixie";
/// First release of OVN whose northd handles load balancers incrementally: the host's is used from here on.
const MODERN: Version = Version::new(24, 3, 0);
/// The suites that can be unpacked, with the releases that docs/ovn.md names for them: sid rolls.
const SUITES: [(&str, Version); 3] = [
    ("bookworm", Version::new(23, 3, 0)),
    ("trixie", Version::new(25, 3, 0)),
    ("sid", Version::new(26, 3, 0)),
];
/// Programs without which a release is not whole. `install-packages.sh` asks for the same ones.
const PROGRAMS: [&str; 9] = [
    "ovn-northd",
    "ovn-controller",
    "ovn-nbctl",
    "ovn-sbctl",
    "ovs-vswitchd",
    "ovsdb-server",
    "ovsdb-tool",
    "ovs-vsctl",
    "ovs-appctl",
];

/// A release of OVN and Open vSwitch whose programs can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    name: String,
    /// The folder with its programs, where they are not the host's.
    programs: Option<PathBuf>,
    share: PathBuf,
    ovn: Version,
    ovs: Version,
}

/// The requested release is not on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Release {
    /// The release that the environment chooses; looked up once in a process.
    ///
    /// # Errors
    /// [`Unavailable`] with what to do.
    pub fn chosen() -> Result<&'static Release, Unavailable> {
        static CHOSEN: OnceLock<Result<Release, Unavailable>> = OnceLock::new();
        CHOSEN.get_or_init(|| Self::choose(env::var(ENV).ok().as_deref())).as_ref().map_err(Clone::clone)
    }

    fn choose(wanted: Option<&str>) -> Result<Release, Unavailable> {
        match wanted.unwrap_or_default() {
            "" => {
                Self::host().ok().filter(|host| host.ovn >= MODERN).map_or_else(|| Self::suite(DEFAULT), Ok)
            }
            "host" => Self::host(),
            suite if SUITES.iter().any(|(name, _)| *name == suite) => Self::suite(suite),
            // Processes run in many folders, and PATH parts its folders by colons.
            path if path.starts_with('/') && !path.contains(':') => Self::unpacked(path, Path::new(path)),
            other => Err(Unavailable(format!(
                "{ENV} is {other:?}, and may be: host, bookworm, trixie, sid, or an absolute path without a colon"
            ))),
        }
    }

    fn host() -> Result<Release, Unavailable> {
        Self::probe("this machine's", None, Path::new("/usr/share"))
            .ok_or_else(|| Unavailable(format!("OVN is not wholly installed here: {ENV}=host make packages")))
    }

    fn suite(suite: &str) -> Result<Release, Unavailable> {
        let release =
            Self::unpacked(&format!("Debian {suite}"), &Path::new(CACHE).join(suite)).map_err(|_| {
                Unavailable(format!("OVN of Debian {suite} is not here: {ENV}={suite} make packages"))
            })?;
        match SUITES.iter().find(|(name, _)| *name == suite) {
            Some((_, named)) if !release.ovn.is_same_series(*named) => Err(Unavailable(format!(
                "Debian {suite} has OVN {}, and the documentation names {named}: try it by {ENV}={CACHE}/{suite}, and \
                 correct docs/ovn.md if it works",
                release.ovn
            ))),
            _ => Ok(release),
        }
    }

    fn unpacked(name: &str, root: &Path) -> Result<Release, Unavailable> {
        Self::probe(name, Some(root.join("programs")), &root.join("usr/share")).ok_or_else(|| {
            Unavailable(format!("{} is no OVN as testenv/unpack.sh unpacks it", root.display()))
        })
    }

    /// Asks its programs for their versions. `None` if it is not whole, or they cannot be run.
    fn probe(name: &str, programs: Option<PathBuf>, share: &Path) -> Option<Release> {
        let unknown = Version::new(0, 0, 0);
        let (name, share) = (name.to_owned(), share.to_owned());
        let mut release = Release { name, programs, share, ovn: unknown, ovs: unknown };
        let schemas = [release.northbound_schema(), release.southbound_schema(), release.vswitch_schema()];
        if !PROGRAMS.iter().all(|program| release.has(program)) || !schemas.iter().all(|file| file.is_file())
        {
            return None;
        }
        let version_of = |program: &str| {
            let output = release.command(program).arg("--version").output().ok()?;
            Version::said(&String::from_utf8(output.stdout).ok()?)
        };
        let versions = (version_of("ovn-nbctl")?, version_of("ovs-vswitchd")?);
        (release.ovn, release.ovs) = versions;
        Some(release)
    }

    /// Looks for one of its own programs: those of the host, further behind in `PATH`, do not count for others.
    fn has(&self, program: &str) -> bool {
        match &self.programs {
            Some(programs) => programs.join(program).is_file(),
            None => env::split_paths(&self.path()).any(|folder| folder.join(program).is_file()),
        }
    }

    /// A command for one of its programs, or for any program that runs its programs: those find them in `PATH`, and the
    /// schemas below `FIBERLB_OVN_SHARE`.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("PATH", self.path()).env("FIBERLB_OVN_SHARE", &self.share);
        command
    }

    /// `PATH` for processes that run its programs: they come first, then what this process has, and the folders of daemons.
    #[must_use]
    pub fn path(&self) -> OsString {
        let own = env::var_os("PATH").unwrap_or_default();
        let daemons = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        let folders = self.programs.iter().cloned().chain(env::split_paths(&own)).chain(daemons);
        // Only a folder with a colon fails here: none of PATH has one, nor has the release's.
        env::join_paths(folders).unwrap_or(own)
    }

    /// Schema of OVN's northbound database.
    #[must_use]
    pub fn northbound_schema(&self) -> PathBuf {
        self.share.join("ovn/ovn-nb.ovsschema")
    }

    /// Schema of OVN's southbound database.
    #[must_use]
    pub fn southbound_schema(&self) -> PathBuf {
        self.share.join("ovn/ovn-sb.ovsschema")
    }

    /// Schema of Open vSwitch's database.
    #[must_use]
    pub fn vswitch_schema(&self) -> PathBuf {
        self.share.join("openvswitch/vswitch.ovsschema")
    }

    /// Version of OVN.
    #[must_use]
    pub fn ovn(&self) -> Version {
        self.ovn
    }

    /// Version of Open vSwitch.
    #[must_use]
    pub fn ovs(&self) -> Version {
        self.ovs
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OVN {}, Open vSwitch {} ({})", self.ovn, self.ovs, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_nobody_knows_is_refused_with_what_may_be_said() {
        let refused = Release::choose(Some("jammy")).unwrap_err().to_string();
        assert!(refused.contains("\"jammy\"") && refused.contains("bookworm, trixie, sid"), "{refused}");
        let refused = Release::choose(Some("/nonexistent")).unwrap_err().to_string();
        assert!(refused.contains("/nonexistent is no OVN"), "{refused}");
        for path in ["./ovn", "/tmp/a:b", ".."] {
            assert!(
                Release::choose(Some(path)).unwrap_err().to_string().contains("an absolute path"),
                "{path}"
            );
        }
    }

    #[test]
    fn the_documentation_names_the_release_of_each_suite() {
        let page = include_str!("../../../docs/ovn.md");
        for (suite, named) in SUITES {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{suite}`"))).unwrap();
            let ovn = row.split('|').nth(2).unwrap().trim();
            assert_eq!(ovn, named.to_string().trim_end_matches(".0"), "{suite}");
        }
    }

    #[test]
    fn programs_of_a_release_go_before_those_of_the_host() {
        let (ovn, ovs) = (Version::new(26, 3, 0), Version::new(4, 0, 0));
        let programs = Some(PathBuf::from("/x/programs"));
        let release = Release { name: "x".to_owned(), programs, share: "/x/usr/share".into(), ovn, ovs };
        assert!(release.path().to_str().unwrap().starts_with("/x/programs:"));
        assert_eq!(release.northbound_schema(), Path::new("/x/usr/share/ovn/ovn-nb.ovsschema"));
        assert_eq!(release.to_string(), "OVN 26.03.0, Open vSwitch 4.0.0 (x)");
    }
}
