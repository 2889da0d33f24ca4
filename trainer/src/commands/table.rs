//! Tables as text.

use comfy_table::{CellAlignment, Table, presets};

/// A table without lines, whose first column is text and whose others are numbers, but for the last ones in `texts`.
pub(crate) fn table(header: &[&str], texts: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    let numbers = header.len() - 1 - texts;
    for column in table.column_iter_mut().skip(1).take(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A table's lines, without the blanks at their ends.
pub(crate) fn lines(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
