//! What crosses crates, one module per theme.

mod coffee;
mod command_lines;
mod data_hygiene;
mod hostile_input;
mod initial_weights;
mod keras_split;
mod onnx_checker;
mod parity;
mod preprocessing;
mod quantization;
mod run_folder;
mod slim_export;
mod slimming;
