use std::{io, io::Write, path::Path};

/// Writes a file so that, at any instant, its path holds either the old content or all of the new.
///
/// The bytes go to a temporary file in the same folder, to the disk, and are then renamed.
///
/// # Errors
/// Those of the file system; the temporary file is gone then, and the old file untouched.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    persist(file, path)
}

/// Brings a finished temporary file to the disk and to its name, readable as a plain new file would be.
pub fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
