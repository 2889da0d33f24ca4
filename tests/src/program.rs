use std::{
    env, fmt,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};

use crate::surroundings::profile_folder;

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// One of the project's programs, from beside this test, in surroundings that are the same everywhere.
///
/// # Errors
/// Where it was not built.
pub fn program(name: &str) -> Result<Command> {
    let path = profile_folder()?.join(format!("{name}{}", env::consts::EXE_SUFFIX));
    ensure!(
        path.is_file(),
        "this test runs the program {}, which is not built; run `cargo xtask test`, or build it with this test's profile",
        path.display()
    );
    let mut command = Command::new(path);
    command.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE");
    // Settings of the person who runs the tests must not become those of a test.
    for (name, _) in env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"DEMITASSE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot start, or where it panicked: no input may do that.
pub fn run(command: &mut Command) -> Result<Finished> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let finished = Finished::from(output);
    ensure!(finished.code != Some(101) && !finished.stderr.contains("panicked at"), "{command:?} panicked\n{finished}");
    Ok(finished)
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Finished {
    /// Demands an exit code.
    ///
    /// # Errors
    /// Where it is another, with everything that the program said.
    pub fn with_code(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "expected exit code {code}\n{self}");
        Ok(self)
    }

    /// Demands exit code 1 and an error that has each of these parts: an error of the user's making.
    ///
    /// # Errors
    /// Where it was no such error, or where a part is missing.
    pub fn fails_with(self, parts: &[&str]) -> Result<Self> {
        let finished = self.with_code(1)?;
        for part in parts {
            ensure!(finished.stderr.contains(part), "expected an error that says \"{part}\"\n{finished}");
        }
        Ok(finished)
    }

    /// Standard output as JSON.
    ///
    /// # Errors
    /// Where it is not one JSON document.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("expected JSON on standard output\n{self}"))
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(formatter, "exit code: {code:?}\nstandard output:\n{stdout}\nstandard error:\n{stderr}")
    }
}
