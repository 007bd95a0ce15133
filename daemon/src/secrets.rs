//! Files that others must not read or change, and directories in which they must not replace them.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Permission bits of the group and of others.
const OTHERS: u32 = 0o077;
/// Bits with which they write.
const WRITE: u32 = 0o022;
/// The group's bit for reading, which a file of root's may have: a daemon with a user of its own reads it so.
const GROUP_READ: u32 = 0o040;
/// Bit of a directory in which everybody writes, and only the owner of a file replaces it, such as /tmp.
const STICKY: u32 = 0o1000;

/// Content of a secret file, such as a private key, at most `most` bytes and one.
///
/// # Errors
/// It cannot be read, or its mode lets others read or change it; the text then says what to run.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    check(path, &file.metadata()?)?;
    let mut content = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

/// Checks the mode of a secret file, if it is there.
///
/// # Errors
/// As [`read`].
pub fn check_file(path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(metadata) => check(path, &metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks that others cannot replace files in a directory, if it is there.
///
/// # Errors
/// They can; the text says what to run.
pub fn check_directory(path: &Path) -> io::Result<()> {
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.mode(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if mode & WRITE == 0 || mode & STICKY != 0 {
        return Ok(());
    }
    Err(refusal(path, mode, "others can replace the files in it", mode & !WRITE))
}

fn check(path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mode = metadata.mode();
    let allowed = if metadata.uid() == 0 { !OTHERS | GROUP_READ } else { !OTHERS };
    // Devices and pipes, such as those of a service manager, keep nothing.
    if !metadata.is_file() || mode & !allowed == 0 {
        return Ok(());
    }
    Err(refusal(path, mode, "others can read or change it", mode & allowed))
}

fn refusal(path: &Path, mode: u32, why: &str, better: u32) -> io::Error {
    let (mode, better, path) = (mode & 0o7777, better & 0o777, path.display());
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{path} has mode {mode:04o}, so that {why}: run chmod {better:o} {path}"),
    )
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;

    /// Refusal, without the path.
    fn refused(path: &Path, result: io::Result<()>) -> Option<String> {
        result.err().map(|error| error.to_string().replace(&path.display().to_string(), "it"))
    }

    #[test]
    fn a_secret_is_its_owners_alone_or_roots_and_a_groups() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(refused(&path, check_file(&path)), None, "it may not be there yet");
        fs::write(&path, "secret").unwrap();
        let check = |mode| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            refused(&path, check_file(&path))
        };
        let can = "so that others can read or change it";
        for root in [true, false] {
            if root != (fs::metadata(&path).unwrap().uid() == 0) && chown(&path, Some(12_345), None).is_err()
            {
                continue;
            }
            for fine in [0o600, 0o400, 0o700] {
                assert_eq!(check(fine), None);
            }
            let (group, better) = if root { (None, 640) } else { (Some(600), 600) };
            let text = |mode: &str, better| format!("it has mode {mode}, {can}: run chmod {better} it");
            assert_eq!(check(0o640), group.map(|better| text("0640", better)));
            for (mode, shown) in [(0o644, "0644"), (0o666, "0666"), (0o660, "0660")] {
                assert_eq!(check(mode), Some(text(shown, better)));
            }
            assert_eq!(check(0o602), Some(text("0602", 600)));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(read(&path, 100).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(
            (read(&path, 100).unwrap(), read(&path, 2).unwrap()),
            (b"secret".to_vec(), b"sec".to_vec())
        );
    }

    #[test]
    fn nobody_else_writes_to_a_directory_of_secrets() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let check = |mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
            refused(path, check_directory(path))
        };
        for fine in [0o700, 0o755, 0o750, 0o1777] {
            assert_eq!(check(fine), None);
        }
        let text = |mode, better| {
            Some(format!(
                "it has mode {mode}, so that others can replace the files in it: run chmod {better} it"
            ))
        };
        assert_eq!(check(0o775), text("0775", 755));
        assert_eq!(check(0o777), text("0777", 755));
        assert_eq!(check(0o702), text("0702", 700));
        assert_eq!(refused(path, check_directory(&path.join("none"))), None);
    }
}
