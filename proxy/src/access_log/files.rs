//! Files of the access log, one for each project, which are replaced before they grow too large.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Most files that are open at a time; others are opened for a line.
const OPEN_FILES: usize = 64;

/// Longest name of a file without its ending: names may have 255 bytes.
const NAME_BYTES: usize = 200;

/// Files of projects in a directory.
#[derive(Debug)]
pub(super) struct ProjectFiles {
    directory: PathBuf,
    max_bytes: u64,
    open: HashMap<String, OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    file: BufWriter<File>,
    bytes: u64,
}

impl ProjectFiles {
    /// Files in a directory, which is made unless it is there.
    pub(super) fn new(directory: PathBuf, max_bytes: u64) -> io::Result<Self> {
        if !directory.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
            // Whatever the umask is.
            fs::set_permissions(&directory, Permissions::from_mode(0o750))?;
        }
        Ok(Self { directory, max_bytes, open: HashMap::new() })
    }

    /// Adds a line to a project's file. It is in the file after [`Self::flush`].
    pub(super) fn write(&mut self, project: &str, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        let max_bytes = self.max_bytes;
        let is_full = |file: &OpenFile| file.bytes > 0 && file.bytes + length > max_bytes;
        if !self.open.contains_key(project) {
            if self.open.len() >= OPEN_FILES {
                self.flush()?;
                self.open.clear();
            }
            self.open.insert(project.to_owned(), OpenFile::open(&self.path(project))?);
        }
        if self.open.get(project).is_some_and(is_full) {
            self.replace(project)?;
        }
        let Some(file) = self.open.get_mut(project) else { return Ok(()) };
        file.file.write_all(line)?;
        file.bytes += length;
        Ok(())
    }

    /// Hands all lines to the kernel.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let flushed = self.open.values_mut().map(|open| open.file.flush()).fold(Ok(()), Result::and);
        if flushed.is_err() {
            self.open.clear();
        }
        flushed
    }

    /// Closes all files: the next lines go to files by the same names, whatever these are then.
    pub(super) fn reopen(&mut self) {
        self.open.clear();
    }

    fn replace(&mut self, project: &str) -> io::Result<()> {
        if let Some(mut full) = self.open.remove(project) {
            full.file.flush()?;
        }
        let path = self.path(project);
        fs::rename(&path, path.with_extension("log.1"))?;
        self.open.insert(project.to_owned(), OpenFile::open(&path)?);
        Ok(())
    }

    fn path(&self, project: &str) -> PathBuf {
        self.directory.join(format!("{}.log", file_name(project)))
    }
}

impl OpenFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let bytes = file.metadata()?.len();
        if bytes == 0 && file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o640))?;
        }
        Ok(Self { file: BufWriter::new(file), bytes })
    }
}

/// Name of a project's file: letters, digits, `-` and `_` stand for themselves, other bytes as in URLs. Two projects
/// never share one, and none leads out of the directory. A name that would be too long ends in a hash.
fn file_name(project: &str) -> String {
    let mut name = String::new();
    for byte in project.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_".contains(&byte) {
            name.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(name, "%{byte:02X}");
        }
    }
    if name.is_empty() {
        "%".clone_into(&mut name);
    }
    if name.len() > NAME_BYTES {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(project);
        name.truncate(NAME_BYTES);
        let _ = write!(name, "%{hash:016x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_project_has_a_file_of_its_own_in_the_directory() {
        let long = "é".repeat(255);
        let names =
            [("web", "web"), ("", "%"), ("..", "%2E%2E"), ("a/../b", "a%2F%2E%2E%2Fb"), ("a%2Fb", "a%252Fb")];
        for (project, name) in names {
            assert_eq!(file_name(project), name);
        }
        assert!(file_name(&long).len() < 250 && file_name(&long) != file_name(&"é".repeat(254)));
        let directory = tempfile::tempdir().unwrap();
        let mut files = ProjectFiles::new(directory.path().join("log"), 1 << 20).unwrap();
        for project in ["web", "shop", &long, "../../etc/passwd"] {
            files.write(project, b"{}\n").unwrap();
        }
        files.flush().unwrap();
        let found = fs::read_dir(directory.path().join("log")).unwrap().count();
        assert_eq!(found, 4);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_project_has_two_files_at_most_and_none_larger_than_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = ProjectFiles::new(directory.path().to_owned(), 10).unwrap();
        for line in ["1234567\n", "89\n", "larger than a file\n", "end\n"] {
            files.write("web", line.as_bytes()).unwrap();
        }
        files.flush().unwrap();
        let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("web.log").as_str(), read("web.log.1").as_str()), ("end\n", "larger than a file\n"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn lines_of_many_projects_are_all_written_and_those_of_before_stay() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let mut files = ProjectFiles::new(directory.path().to_owned(), 1 << 20).unwrap();
            for round in 0..3 {
                for project in 0..OPEN_FILES + 5 {
                    files.write(&project.to_string(), format!("{round}\n").as_bytes()).unwrap();
                }
            }
            files.flush().unwrap();
        }
        for project in 0..OPEN_FILES + 5 {
            let text = fs::read_to_string(directory.path().join(format!("{project}.log"))).unwrap();
            assert_eq!(text, "0\n1\n2\n0\n1\n2\n");
        }
    }
}
