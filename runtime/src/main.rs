//! runtime.
fn main() {}
