//! `runtime`: classify pictures with an ONNX model, and say how well and how fast it does.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
