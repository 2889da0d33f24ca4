use anyhow::{Result, ensure};

use crate::{onnxruntime, process, python, workspace::Workspace};

/// Fetches what the tests need, builds the programs that they run, and runs every test.
pub fn test(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let coffee = workspace.coffee();
    ensure!(
        coffee.is_dir(),
        "the tests train on real pictures, and {} is not there; set DEMITASSE_COFFEE to a folder of coffee beans \
         with one folder per roast (CONTRIBUTING.md)",
        coffee.display()
    );
    let library = onnxruntime::library(workspace)?;
    let packages = python::onnx_packages(&workspace.target)?;
    workspace.build_programs()?;
    let mut tests = workspace.cargo();
    tests.args(["test", "--release", "--workspace"]).args(arguments);
    tests.env("ORT_DYLIB_PATH", library).env("PYTHONPATH", packages).env("DEMITASSE_COFFEE", coffee);
    process::run(&mut tests)
}
