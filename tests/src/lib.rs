//! What the tests of `suite/` share: pictures by formula, runs of the programs, logits of every engine,
//! and the tolerances that numbers are compared with.
//!
//! `cargo xtask test` fetches what the suite needs (ONNX Runtime, the `onnx` checker), builds the programs
//! and runs it. A test that misses a part fails and names it.

mod engines;
mod pictures;
mod program;
mod run;
mod surroundings;
mod tolerance;

pub use engines::{candle_onnx_logits, network_logits, open};
pub use pictures::{formula_picture, png, write_class_folders};
pub use program::{Finished, program, run};
pub use run::TemporaryRun;
pub use surroundings::{coffee_pictures, fixture, python, target_folder};
pub use tolerance::{Levels, Tolerance};
