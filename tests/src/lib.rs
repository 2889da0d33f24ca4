//! What crosses crates: parity, command lines, hostile input, real pictures.
