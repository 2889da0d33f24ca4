//! The plots of a run and of a search: curves, confusion matrix, reliability, robustness, accuracies side by side, and a grid of its pictures.

mod accuracies;
mod confusion;
mod curves;
mod folds;
mod preview;
mod range_test;
mod reliability;
mod robustness;
mod students;

pub use accuracies::accuracies;
pub use confusion::confusion;
pub use curves::curves;
pub use folds::folds;
pub use preview::preview;
pub use range_test::range_test;
pub use reliability::reliability;
pub use robustness::robustness;
pub use students::students;

const INK: &str = "#1e293b";
const MUTED: &str = "#64748b";
const GRID: &str = "#e2e8f0";
const FRAME: &str = "#94a3b8";
/// White space around a plot.
const MARGIN: f64 = 28.0;
