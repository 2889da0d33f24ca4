use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

/// The Python 3 of this machine: `DEMITASSE_PYTHON`, or `python3`.
pub fn python() -> Command {
    Command::new(env::var_os("DEMITASSE_PYTHON").unwrap_or_else(|| "python3".into()))
}

/// Installs packages with pip into a folder of their own, so that nothing on the machine changes.
///
/// The folder appears whole or not at all: pip works in another one beside it, renamed at the end.
pub fn install(folder: &Path, packages: &[&str], with_dependencies: bool) -> Result<()> {
    let unfinished = folder.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    let mut pip = python();
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action",
        "ignore",
        "--target",
    ]);
    pip.arg(&unfinished).args(packages);
    if !with_dependencies {
        pip.arg("--no-deps");
    }
    process::run(&mut pip)
        .context("pip could not fetch the packages; Python 3 with pip and a package index are needed")?;
    let _ = fs::remove_dir_all(folder);
    fs::rename(&unfinished, folder).with_context(|| format!("cannot rename {}", unfinished.display()))
}

/// The folder with the `onnx` checker that tests run, fetched where it is missing.
pub fn onnx_packages(target: &Path) -> Result<PathBuf> {
    let folder = target.join("python");
    if !folder.join("onnx").is_dir() {
        install(&folder, &["onnx==1.23.2", "numpy"], true)?;
    }
    Ok(folder)
}
