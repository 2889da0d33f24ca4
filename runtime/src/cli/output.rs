//! Writing to standard output, where a closed pipe is no error, and the shape of tables.

use std::io::{self, Write};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use models::{Interval, TemperatureScaling};
use serde::Serialize;

/// Writes a value as JSON, indented, with a line feed at its end.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut stdout = io::stdout().lock();
    // serde_json would hide the kind of an I/O error.
    stdout.write_all(&serde_json::to_vec_pretty(value)?)?;
    writeln!(stdout)?;
    Ok(())
}

/// Writes a text with a line feed at its end.
pub(crate) fn text(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// A table without lines, whose first column is text and whose others are numbers.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A share as a percentage with two places.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A share as a percentage, with its 95 % interval where there is one.
pub(crate) fn with_interval(share: f64, interval: Option<Interval>) -> String {
    match interval {
        Some(Interval { low, high }) => {
            format!("{} (95 % interval {:.1} to {:.1} %)", percent(share), 100.0 * low, 100.0 * high)
        }
        None => percent(share),
    }
}

/// Whether probabilities are calibrated, and how.
pub(crate) fn calibration(scaling: Option<&TemperatureScaling>) -> String {
    match scaling {
        Some(TemperatureScaling { temperature, data, pictures, engine }) => {
            format!("yes: temperature {:.3}, fitted to {pictures} pictures, {data}, with {engine}", temperature.value())
        }
        None => "no: the probabilities are the network's own".to_owned(),
    }
}

/// A size in the largest unit that leaves at least 1 before the point.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!([999, 1_000, 537_107_728, 2_000_000_000].map(bytes), ["999 bytes", "1.0 kB", "537.1 MB", "2.00 GB"]);
    }
}
