use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{python, workspace::Workspace};

/// The release that the project is tested with; `runtime` accepts 1.24 and newer.
const PACKAGE: &str = "onnxruntime==1.32.0";

/// Fetches the library where it is missing, and prints its path.
#[expect(clippy::print_stdout, reason = "the path is this command's result, for `export ORT_DYLIB_PATH=$(…)`")]
pub fn print_library(workspace: &Workspace) -> Result<()> {
    println!("{}", library(workspace)?.display());
    Ok(())
}

/// The library: what `ORT_DYLIB_PATH` names, or what pip has fetched, fetched now where it is missing.
pub fn library(workspace: &Workspace) -> Result<PathBuf> {
    if let Some(library) = present(workspace) {
        return Ok(library);
    }
    let folder = folder(workspace);
    python::install(&folder, &[PACKAGE], false)?;
    find(&folder).with_context(|| format!("{PACKAGE} brought no shared library to {}", folder.display()))
}

/// The library, where it needs no fetching.
pub fn present(workspace: &Workspace) -> Option<PathBuf> {
    env::var_os("ORT_DYLIB_PATH").map(PathBuf::from).or_else(|| find(&folder(workspace)))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("onnxruntime")
}

/// The wheel names the library `libonnxruntime.so.1.32.0`, `libonnxruntime.1.32.0.dylib` or `onnxruntime.dll`.
fn find(folder: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder.join("onnxruntime").join("capi")).ok()?;
    files.filter_map(|file| Some(file.ok()?.path())).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("libonnxruntime.so")
            || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
            || name == "onnxruntime.dll"
    })
}
