//! Holds the build dependency that brings a protobuf compiler (see `.cargo/protoc`); generates nothing.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
