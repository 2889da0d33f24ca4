//! The project's chores: `cargo xtask demo`, `test`, `onnxruntime`, `peers`, `check-cuda`, `fashion-mnist`, `ci`.

mod check_cuda;
mod ci;
mod demo;
mod fashion_mnist;
mod onnxruntime;
mod peers;
mod process;
mod python;
mod test;
mod workspace;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's chores.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Paint pictures, train, export, quantize, verify, predict, and show what came out.
    ///
    /// Needs nothing but the project: the pictures are synthetic, painted by `trainer sample-data`. ONNX
    /// Runtime is measured beside tract where `cargo xtask onnxruntime` has fetched it.
    Demo,
    /// Fetch what the tests need with pip, build the programs, and run every test.
    Test {
        /// Passed on to the test programs: a part of a test's name, or `-- --nocapture`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fetch ONNX Runtime's shared library with pip into the target folder, and print its path.
    Onnxruntime,
    /// Measure the project beside other tools in turns, and write the table into docs/peers.md.
    ///
    /// The tools are fetched with pip into the target folder: 6 GB for PyTorch, whose package has CUDA in it, 2 GB for
    /// TensorFlow, 1 GB for the others of inference, which also takes 4 GB for the network in their forms. Run it
    /// where nothing else runs.
    Peers(peers::Options),
    /// Lint the CUDA code and its tests; no GPU is needed, and none of it runs.
    ///
    /// With the CUDA toolkit of CUDA_HOME or PATH where there is one. Otherwise with a stand-in for nvcc that writes
    /// empty kernels: enough for types and lints, not for a program that runs.
    CheckCuda {
        /// Fetch NVIDIA's compiler with pip into the target folder (620 MB), and compile the kernels with it.
        #[arg(long)]
        toolkit: bool,
    },
    /// Turn the files of Fashion-MNIST into FOLDER/train and FOLDER/test, with a folder of pictures for each class.
    FashionMnist {
        /// A folder that does not exist yet.
        folder: PathBuf,
        /// Where the four files lie; by default where Debian's package dataset-fashion-mnist puts them.
        #[arg(long, default_value = "/usr/share/datasets/fashion-mnist")]
        source: PathBuf,
    },
    /// Everything that a change must pass: formatting, lints, features, documentation, tests.
    Ci,
}

fn main() -> ExitCode {
    let result = Workspace::locate().and_then(|workspace| match Arguments::parse().chore {
        Chore::Demo => demo::demo(&workspace),
        Chore::Test { arguments } => test::test(&workspace, &arguments),
        Chore::Onnxruntime => onnxruntime::print_library(&workspace),
        Chore::Peers(options) => peers::peers(&workspace, options),
        Chore::CheckCuda { toolkit } => check_cuda::check_cuda(&workspace, toolkit),
        Chore::FashionMnist { folder, source } => fashion_mnist::unpack(&source, &folder),
        Chore::Ci => ci::ci(&workspace),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
