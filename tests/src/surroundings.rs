use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

/// A file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// The folder that this test was built into, of its profile: `target/release`.
pub(crate) fn profile_folder() -> Result<PathBuf> {
    let test = env::current_exe().context("the path of this test")?;
    // target/release/deps/suite-0123456789abcdef
    let folder = test.parent().and_then(Path::parent);
    Ok(folder.with_context(|| format!("{} lies in no target folder", test.display()))?.to_owned())
}

/// Cargo's target folder.
///
/// # Errors
/// Where this test was not built by Cargo.
pub fn target_folder() -> Result<PathBuf> {
    let profile = profile_folder()?;
    Ok(profile.parent().context("a profile's folder lies in the target folder")?.to_owned())
}

/// The folder of real pictures: `DEMITASSE_COFFEE`, or the folder beside the checkout.
///
/// # Errors
/// Where it is not there.
pub fn coffee_pictures() -> Result<PathBuf> {
    let folder = env::var_os("DEMITASSE_COFFEE").unwrap_or_else(|| "../shared/data/coffee-beans".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's root")?;
    let folder = root.join(folder);
    ensure!(
        folder.is_dir(),
        "this test needs the coffee pictures, and {} is not there; set DEMITASSE_COFFEE to their folder",
        folder.display()
    );
    Ok(folder)
}

/// A Python that can import `onnx`: `DEMITASSE_PYTHON`, or `python3`, with the packages that `cargo xtask test` fetched.
///
/// # Errors
/// Where `onnx` is missing.
pub fn python() -> Result<Command> {
    let interpreter = env::var_os("DEMITASSE_PYTHON").unwrap_or_else(|| "python3".into());
    let packages = match env::var_os("PYTHONPATH") {
        Some(packages) => packages,
        None => target_folder()?.join("python").into(),
    };
    let command = || {
        let mut command = Command::new(&interpreter);
        command.env("PYTHONPATH", &packages);
        command
    };
    let advice = || format!("{} cannot import onnx; run `cargo xtask test`, which fetches it", interpreter.display());
    let output = command().args(["-c", "import onnx.checker"]).output().with_context(advice)?;
    ensure!(output.status.success(), "{}\n{}", advice(), String::from_utf8_lossy(&output.stderr));
    Ok(command())
}
