//! Input that is damaged, foreign or malicious: each has a specific error or the right answer, and nothing panics.

mod folders;
mod models;
mod output;
mod pictures;
mod runs;
