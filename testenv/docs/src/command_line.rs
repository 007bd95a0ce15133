//! Reading of a command line: its remark, and the daemon that it starts. Pure; it reads no more of bash's grammar than pages
//! need.

/// Directives for the runner in the comment behind a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Remark {
    /// `# on NAME` or `# on NAME: words`: the machine that it is typed on.
    pub(crate) machine: Option<String>,
    /// `# … exits with N`: the status that it ends with.
    pub(crate) status: Option<i32>,
}

impl Remark {
    /// Reads the remark of a command, which may have several lines.
    pub(crate) fn of(text: &str) -> Self {
        let comment =
            text.lines().last().and_then(|line| line.rsplit_once(" # ")).map(|(_, comment)| comment);
        let comment = comment.unwrap_or_default().trim();
        Self { machine: machine(comment), status: status(comment) }
    }
}

/// The machine that a comment names: `on NAME`, and other words behind a colon or comma.
pub(crate) fn machine(comment: &str) -> Option<String> {
    let words = comment.strip_prefix("on ")?;
    let name = words.split([',', ':']).next()?.trim();
    (!name.is_empty() && !name.contains(char::is_whitespace)).then(|| name.to_owned())
}

fn status(comment: &str) -> Option<i32> {
    let (_, number) = comment.split_once("exits with ")?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// True if the next line belongs to the same command.
pub(crate) fn is_continued(text: &str) -> bool {
    text.ends_with('\\')
}

/// Words of `fiberlb` that only look.
const LOOKS: [&str; 7] = ["list", "ls", "show", "get", "tree", "verify", "curl"];
/// Words that change something, wherever they stand.
const CHANGES: [&str; 9] =
    ["create", "update", "delete", "apply", "drain", "cordon", "uncordon", "remove", "--data"];

/// True if a command only reads, so that it may be retried until it shows what the page shows.
pub(crate) fn only_looks(text: &str) -> bool {
    let code = without_comment(text);
    let words: Vec<&str> = code.split_whitespace().collect();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    let of_ours = words.iter().any(|word| matches!(*word, "fiberlb" | "curl" | "etcdctl"));
    of_ours && has(&LOOKS) && !has(&CHANGES) && !code.contains(['>', ';'])
}

/// True if part of a command is run on the VM `client`, by the command of that name.
pub(crate) fn is_on_client(text: &str) -> bool {
    without_comment(text).split([';', '|', '&']).any(|part| {
        let words = part.split_whitespace().skip_while(|word| *word == "do");
        words.take(1).eq(["client"])
    })
}

/// A command line that starts a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DaemonLine {
    /// Program to start.
    pub(crate) program: Program,
    /// Identity among the daemons of its kind on the same machine: its address or its node's id.
    pub(crate) identity: String,
    /// The line, so that bash becomes the daemon.
    pub(crate) executed: String,
}

/// A daemon of FiberLB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `fiberlb-plugin`.
    Plugin,
    /// `fiberlb-proxy`.
    Proxy,
}

impl Program {
    const ALL: [Program; 2] = [Program::Plugin, Program::Proxy];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Plugin => "fiberlb-plugin",
            Program::Proxy => "fiberlb-proxy",
        }
    }

    /// The option that tells one from another on the same machine.
    fn identity(self) -> &'static str {
        match self {
            Program::Plugin => "--listen",
            Program::Proxy => "--node-id",
        }
    }

    /// The metric that is 1 once it does its work.
    pub(crate) fn ready(self) -> &'static str {
        match self {
            Program::Plugin => "fiberlb_northbound_connected",
            Program::Proxy => "fiberlb_proxy_plugin_connected",
        }
    }
}

impl DaemonLine {
    /// Reads a command; `None` if it starts no daemon.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let code = without_comment(text);
        let words: Vec<&str> = code.split_whitespace().filter(|word| *word != "\\").collect();
        let first = words.iter().position(|word| !is_assignment(word))?;
        let (name, arguments) = words.get(first..)?.split_first()?;
        let program = Program::ALL.into_iter().find(|program| file_name(name) == program.name())?;
        let serves = arguments.first().is_none_or(|word| word.starts_with('-'));
        let answers = arguments.iter().any(|word| matches!(*word, "--help" | "-h" | "--version" | "-V"));
        if !serves || answers || code.contains([';', '|', '&', '>']) {
            return None;
        }
        let at = words.iter().take(first).try_fold(0, |from, word| end_of(code, from, word))?;
        let at = at + code.get(at..)?.find(name)?;
        let executed = format!("{}exec {}", code.get(..at)?, code.get(at..)?.trim_end());
        Some(Self { program, identity: value(program.identity(), arguments), executed })
    }
}

/// End of a word, searched from a place on.
fn end_of(code: &str, from: usize, word: &str) -> Option<usize> {
    Some(from + code.get(from..)?.find(word)? + word.len())
}

/// Value of an option, in either notation.
fn value(option: &str, arguments: &[&str]) -> String {
    let behind = arguments.iter().skip_while(|word| **word != option).nth(1);
    let within = || arguments.iter().find_map(|word| word.strip_prefix(option)?.strip_prefix('='));
    behind.copied().or_else(within).unwrap_or_default().to_owned()
}

fn without_comment(text: &str) -> &str {
    let line = text.rfind('\n').map_or(0, |at| at + 1);
    let last = text.get(line..).unwrap_or_default();
    let comment = if last.starts_with("# ") { Some(0) } else { last.find(" # ") };
    text.get(..comment.map_or(text.len(), |at| line + at)).unwrap_or(text)
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remark(text: &str) -> (Option<String>, Option<i32>) {
        let Remark { machine, status } = Remark::of(text);
        (machine, status)
    }

    #[test]
    fn remarks_are_read() {
        let on = |name: &str| Some(name.to_owned());
        assert_eq!(remark("ls"), (None, None));
        assert_eq!(remark("ls  # lists"), (None, None));
        assert_eq!(remark("ls # on node-1"), (on("node-1"), None));
        assert_eq!(remark("ls # on node-1: nothing goes through it"), (on("node-1"), None));
        assert_eq!(remark("ls # on node-1, exits with 3"), (on("node-1"), Some(3)));
        assert_eq!(remark("ls # on every machine"), (None, None));
        assert_eq!(remark("ls # it is refused: exits with 2."), (None, Some(2)));
        assert_eq!(remark("ls a \\\n  b # exits with 4"), (None, Some(4)));
    }

    fn daemon(text: &str) -> Option<(Program, String)> {
        DaemonLine::read(text).map(|line| (line.program, line.identity))
    }

    #[test]
    fn daemons_are_told_from_other_commands() {
        let plugin = |identity: &str| Some((Program::Plugin, identity.to_owned()));
        assert_eq!(daemon("fiberlb-plugin"), plugin(""));
        assert_eq!(daemon("fiberlb-plugin  # listens too"), plugin(""));
        assert_eq!(
            daemon("A=1 /usr/bin/fiberlb-plugin \\\n --listen 10.0.0.1:9630"),
            plugin("10.0.0.1:9630")
        );
        assert_eq!(daemon("fiberlb-plugin --listen=[::1]:9 --mtu 3"), plugin("[::1]:9"));
        assert_eq!(daemon("fiberlb-proxy --node-id node-1"), Some((Program::Proxy, "node-1".to_owned())));
        for other in [
            "",
            "fiberlb node list",
            "fiberlb-plugin store export FILE",
            "fiberlb-plugin --version",
            "fiberlb-proxy cleanup",
            "fiberlb-plugin --listen x | tee log",
            "echo fiberlb-plugin",
        ] {
            assert_eq!(daemon(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_looks_is_typed_again() {
        for looks in ["fiberlb tree web", "fiberlb -o json lb list # all", "client curl -s http://10.0.0.9/"]
        {
            assert!(only_looks(looks), "{looks}");
        }
        for changes in
            ["fiberlb lb create --name list", "fiberlb apply -f tree", "curl --data x http://a", "ls", "tree"]
        {
            assert!(!only_looks(changes), "{changes}");
        }
    }

    #[test]
    fn commands_on_the_client_are_told_from_others() {
        for on_client in [
            "client curl -s http://10.0.0.9/",
            "sleep 1; for i in $(seq 9); do client curl -s http://10.0.0.9/; done | sort",
            "fiberlb logs web > shown & sleep 2; client curl http://a; wait $!",
        ] {
            assert!(is_on_client(on_client), "{on_client}");
        }
        for other in
            ["curl http://a # on client", "fiberlb lb update web --name client", "true # ; client true"]
        {
            assert!(!is_on_client(other), "{other}");
        }
    }

    #[test]
    fn bash_becomes_the_daemon() {
        let executed = |text| DaemonLine::read(text).map(|line| line.executed);
        let line = "fiberlb=1 B=fiberlb-proxy fiberlb-proxy \\\n  --zone a # on node-1";
        assert_eq!(executed(line).unwrap(), "fiberlb=1 B=fiberlb-proxy exec fiberlb-proxy \\\n  --zone a");
    }
}
