//! Replacing a file in one step.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::error::Error;

/// One operation of [`replace_file`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create the temporary file beside the target.
    Create,
    /// Give it the permissions of the file it replaces.
    Permissions,
    /// Write up to one MiB.
    Write,
    /// Flush it to the disk.
    Sync,
    /// Rename it over the target.
    Rename,
    /// Flush the directory, so that the new name survives a power cut.
    SyncDirectory,
}

/// Replaces a file by `bytes` in one step: whoever looks sees the old file or the new one, whole.
///
/// A symbolic link stays and its target is replaced; permissions are kept; the temporary file lies in the same directory
/// and is removed on failure.
///
/// # Errors
/// [`Error::Io`] with the path and the cause. The old file is then untouched, unless the last step failed (flushing the
/// directory): then the new one is in place but may not survive a power cut.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    replace_file_with(path, bytes, &mut |_| Ok(()))
}

/// [`replace_file`] with a closure asked before every operation; the operation fails with what it returns.
///
/// # Errors
/// As [`replace_file`].
pub fn replace_file_with(
    path: &Path,
    bytes: &[u8],
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), Error> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let Some(name) = target.file_name() else {
        return Err(Error::io("write", path, io::Error::new(io::ErrorKind::InvalidInput, "the path names no file")));
    };
    let mut temporary_name = name.to_os_string();
    temporary_name.push(format!(".{}-{}.tmp", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
    let temporary = target.with_file_name(temporary_name);

    before(Step::Create).map_err(|e| Error::io("create", &temporary, e))?;
    let file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary);
    let file = file.map_err(|e| Error::io("create", &temporary, e))?;
    let done = fill(file, &temporary, &target, bytes, before).and_then(|()| {
        let renamed = before(Step::Rename).and_then(|()| fs::rename(&temporary, &target));
        renamed.map_err(|e| Error::io("rename a finished file to", &target, e))
    });
    if let Err(error) = done {
        // The first cause is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    let directory = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let flushed = before(Step::SyncDirectory).and_then(|()| sync_directory(&directory));
    flushed.map_err(|e| Error::io("flush the directory", &directory, e))
}

fn fill(
    mut file: fs::File,
    temporary: &Path,
    target: &Path,
    bytes: &[u8],
    before: &mut dyn FnMut(Step) -> io::Result<()>,
) -> Result<(), Error> {
    if let Ok(old) = fs::metadata(target) {
        // Before the first byte, so that a private file is private at all times.
        let kept = before(Step::Permissions).and_then(|()| file.set_permissions(old.permissions()));
        kept.map_err(|e| Error::io("set the permissions of", temporary, e))?;
    }
    for piece in bytes.chunks(1 << 20) {
        let written = before(Step::Write).and_then(|()| file.write_all(piece));
        written.map_err(|e| Error::io("write", temporary, e))?;
    }
    before(Step::Sync).and_then(|()| file.sync_all()).map_err(|e| Error::io("flush", temporary, e))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Directories cannot be opened for flushing here; the rename itself is journalled.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}
