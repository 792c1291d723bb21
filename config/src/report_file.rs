//! Writing a report where the configuration wants it.
//!
//! Holds always: a reader sees the old report or the new one, never a part. Nothing is written to,
//! or through, what others have put into the folder.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes `text` to a new file beside `path`, under a name that nobody can foresee, and gives it
/// that path. A report that is there is replaced, and so is a symbolic link: what it leads to stays
/// as it is.
///
/// # Errors
/// The file system's. What is at `path` and is neither a file nor a link (`/dev/null`) is left
/// alone.
pub fn write_report(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Ok(there) = path.symlink_metadata()
        && !there.is_file()
        && !there.is_symlink()
    {
        return Err(io::Error::other("is there, and is no regular file"));
    }
    let mut prefix = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".");
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty());
    let mut file = tempfile::Builder::new()
        .prefix(&prefix)
        // As readable as a file is by default: what the umask takes away is taken away.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text)?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{read_dir, read_to_string, symlink_metadata, write};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_report_takes_the_place_of_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        for text in ["one", "two"] {
            write_report(&path, text.as_bytes()).unwrap();
            assert_eq!(read_to_string(&path).unwrap(), text);
        }
        let mode = symlink_metadata(&path).unwrap().permissions().mode();
        let usual = dir.path().join("usual");
        write(&usual, "").unwrap();
        assert_eq!(mode, symlink_metadata(usual).unwrap().permissions().mode());
        assert!(write_report(&dir.path().join("none/report.json"), b"").is_err());
        assert_eq!(read_dir(dir.path()).unwrap().count(), 2, "nothing is left");
    }

    /// In a folder that everybody can write to, as `/tmp`.
    #[test]
    fn nothing_is_written_through_a_link_of_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("report.json"), dir.path().join("other"));
        write(&other, "untouched").unwrap();
        let numbered = format!("report.json.{}", std::process::id());
        let links = ["report.json", "report.json.tmp", &numbered];
        for link in links {
            symlink(&other, dir.path().join(link)).unwrap();
        }
        write_report(&path, b"one").unwrap();
        assert_eq!(read_to_string(&other).unwrap(), "untouched");
        assert!(
            symlink_metadata(&path).unwrap().is_file(),
            "no link any more"
        );
        assert_eq!(read_dir(dir.path()).unwrap().count(), links.len() + 1);
    }

    #[test]
    fn what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, socket) = (dir.path().join("folder"), dir.path().join("socket"));
        std::fs::create_dir(&folder).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [&folder, &socket] {
            let e = write_report(path, b"one").unwrap_err();
            assert!(e.to_string().contains("no regular file"), "{e}");
            assert!(!symlink_metadata(path).unwrap().is_file());
        }
        assert_eq!(read_dir(dir.path()).unwrap().count(), 2, "nothing is left");
    }
}
