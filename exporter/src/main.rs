//! exporter.
fn main() {}
