use anyhow::Result;

use crate::{process, test, workspace::Workspace};

/// Feature sets that no other step compiles. CUDA is left out: `check-cuda` compiles the engines once more for it.
const FEATURE_SETS: [(&str, &[&str]); 7] = [
    ("models", &[]),
    ("models", &["distortion"]),
    ("models", &["draw"]),
    ("runtime", &[]),
    ("runtime", &["tract"]),
    ("runtime", &["ort"]),
    ("runtime", &["cli"]),
];

/// Runs the checks from the cheapest to the dearest.
pub fn ci(workspace: &Workspace) -> Result<()> {
    process::run(workspace.cargo().args(["fmt", "--all", "--check"]))?;
    process::run(workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    for (package, features) in FEATURE_SETS {
        let mut check = workspace.cargo();
        check.args(["clippy", "-p", package, "--no-default-features", "--features", &features.join(",")]);
        process::run(check.args(["--", "-D", "warnings"]))?;
    }
    process::run(workspace.cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))?;
    test::test(workspace, &[])
}
