use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::process;

/// Where the project lies, and where it is built.
pub struct Workspace {
    /// The folder of the root `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target folder.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks Cargo.
    pub fn locate() -> Result<Self> {
        let metadata = process::output(cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
        let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
        let folder =
            |key| metadata[key].as_str().map(PathBuf::from).with_context(|| format!("cargo metadata has no {key}"));
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// A Cargo command that runs at the root.
    pub fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        command
    }

    /// Builds the programs in the profile that everything is tested and measured in.
    pub fn build_programs(&self) -> Result<()> {
        process::run(self.cargo().args(["build", "--release", "--workspace", "--bins"]))
    }

    /// The path of one of the built programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.target.join("release").join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// The path of one of the built examples.
    pub fn example(&self, name: &str) -> PathBuf {
        self.target.join("release").join("examples").join(format!("{name}{}", env::consts::EXE_SUFFIX))
    }

    /// The real pictures of the tests: `DEMITASSE_COFFEE`, or a folder beside the checkout.
    pub fn coffee(&self) -> PathBuf {
        let pictures = env::var_os("DEMITASSE_COFFEE").map(PathBuf::from);
        self.root.join(pictures.unwrap_or_else(|| Path::new("../shared/data/coffee-beans").to_owned()))
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
