//! How a batch of planes is cut into tiles, and the strips of them that are transformed at once.

use std::ops::Range;

use crate::simd::{COLUMNS, PANEL, Simd};

/// Tiles of `side`×`side` outputs over all planes of a batch, numbered picture by picture and row
/// by row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub side: usize,
    pub height: usize,
    pub width: usize,
    pub rows: usize,
    pub columns: usize,
    pub tiles: usize,
}

/// Tiles side by side in one row of one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub picture: usize,
    /// First row and column of the outputs.
    pub y: usize,
    pub x: usize,
    /// Tiles.
    pub length: usize,
    /// Number of its first tile, counted from the start of the range asked for.
    pub offset: usize,
}

impl Grid {
    pub fn new(side: usize, batch: usize, height: usize, width: usize) -> Self {
        let (rows, columns) = (height.div_ceil(side), width.div_ceil(side));
        Self { side, height, width, rows, columns, tiles: batch * rows * columns }
    }

    /// Cuts a range of tiles into segments of at most `longest`.
    pub fn segments(self, tiles: Range<usize>, longest: usize) -> impl Iterator<Item = Segment> {
        let mut next = tiles.start;
        std::iter::from_fn(move || {
            if next >= tiles.end {
                return None;
            }
            let (row, column) = (next / self.columns, next % self.columns);
            let length = (self.columns - column).min(tiles.end - next).min(longest);
            let segment = Segment {
                picture: row / self.rows,
                y: row % self.rows * self.side,
                x: column * self.side,
                length,
                offset: next - tiles.start,
            };
            next += length;
            Some(segment)
        })
    }
}

/// Columns of pixels in a strip: what fits the first-level cache at eight rows of sixteen channels.
pub(in crate::conv3x3) const PITCH: usize = 56;

/// Tiles in the longest strip, for transforms of `N` points.
pub(super) const fn longest<const N: usize>() -> usize {
    (PITCH - 2) / (N - 2)
}

/// Floats in a strip buffer: `[N][PITCH][PANEL]`.
pub(super) const fn strip_len<const N: usize>() -> usize {
    N * PITCH * PANEL
}

/// Where the pixels of a strip lie in a plane; what lies outside it counts as zero.
#[derive(Clone, Copy, Debug)]
pub(in crate::conv3x3) struct Window {
    /// First row and column, -1 for the padding.
    pub y: isize,
    pub x: isize,
    pub rows: usize,
    pub columns: usize,
}

impl Window {
    /// The columns of the window that lie in the plane.
    pub fn inside(self, width: usize) -> Range<usize> {
        let start = (-self.x).clamp(0, self.columns as isize) as usize;
        let end = (width as isize - self.x).clamp(start as isize, self.columns as isize) as usize;
        start..end
    }
}

/// The planes of one panel of channels in one picture: `channels` (at most [`PANEL`]) planes of
/// `height`×`width` in a row.
#[derive(Clone, Copy, Debug)]
pub(in crate::conv3x3) struct Planes<P> {
    pub start: P,
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl<P> Planes<P> {
    fn plane(&self) -> usize {
        self.height * self.width
    }
}

/// Copies a window of the planes into `strip`, `[rows][PITCH][PANEL]`, zero outside.
///
/// # Safety
/// `planes` must be readable, and `strip` writable for `window.rows` rows, of which
/// `window.columns` must not exceed [`PITCH`].
#[inline(always)]
pub(super) unsafe fn gather<S: Simd>(simd: S, planes: Planes<*const f32>, window: Window, strip: *mut f32) {
    let inside = window.inside(planes.width);
    for row in 0..window.rows {
        let y = window.y + row as isize;
        // SAFETY: the strip is writable for `window.rows` rows, and the columns written are below
        // `window.columns`; the row read lies in the plane.
        unsafe {
            let to = strip.add(row * PITCH * PANEL);
            if y < 0 || y >= planes.height as isize || inside.is_empty() {
                clear(simd, to, 0..window.columns);
                continue;
            }
            clear(simd, to, 0..inside.start);
            clear(simd, to, inside.end..window.columns);
            let x = (window.x + inside.start as isize) as usize;
            let from = planes.start.add(y as usize * planes.width + x);
            gather_row(simd, planes, from, inside.len(), to.add(inside.start * PANEL));
        }
    }
}

/// # Safety
/// The columns must be writable.
#[inline(always)]
pub(super) unsafe fn clear<S: Simd>(simd: S, row: *mut f32, columns: Range<usize>) {
    for start in (columns.start * PANEL..columns.end * PANEL).step_by(S::WIDTH) {
        // SAFETY: the start is in the columns that the caller promises, at a multiple of the width.
        unsafe { simd.store(row.add(start), simd.splat(0.0)) };
    }
}

/// Copies the columns of one row to `to`, `[count][PANEL]`, zero beyond the last channel.
///
/// # Safety
/// `count` columns must be readable from `from` in each plane, and writable at `to`.
#[inline(always)]
pub(in crate::conv3x3) unsafe fn gather_row<S: Simd>(
    simd: S,
    planes: Planes<*const f32>,
    from: *const f32,
    count: usize,
    to: *mut f32,
) {
    let whole = if count >= COLUMNS { planes.channels / S::WIDTH * S::WIDTH } else { 0 };
    let mut column = 0;
    while whole > 0 && column < count {
        // The last group is moved left, over columns already there, instead of being cut.
        let start = column.min(count - COLUMNS);
        for channel in (0..whole).step_by(S::WIDTH) {
            // SAFETY: `start + COLUMNS <= count`, and `channel + WIDTH <= channels`.
            unsafe {
                let rows = from.add(channel * planes.plane() + start);
                let columns = simd.load_transposed(rows, planes.plane());
                for (index, vector) in columns.into_iter().enumerate() {
                    simd.store(to.add((start + index) * PANEL + channel), vector);
                }
            }
        }
        column += COLUMNS;
    }
    for channel in whole..PANEL {
        for column in 0..count {
            // SAFETY: the column is below `count`, and only planes that exist are read.
            unsafe {
                let value =
                    if channel < planes.channels { from.add(channel * planes.plane() + column).read() } else { 0.0 };
                to.add(column * PANEL + channel).write(value);
            }
        }
    }
}

/// Copies a strip, `[rows][PITCH][PANEL]`, to a window of the planes that lies in them, apart from
/// what its last rows and columns exceed them by.
///
/// # Safety
/// The planes must be writable, by nobody else in this window, and `strip` readable.
#[inline(always)]
pub(in crate::conv3x3) unsafe fn scatter<S: Simd>(
    simd: S,
    planes: Planes<*mut f32>,
    window: Window,
    strip: *const f32,
) {
    let count = window.inside(planes.width).len();
    let whole = if count >= COLUMNS { planes.channels / S::WIDTH * S::WIDTH } else { 0 };
    let bottom = (window.y as usize + window.rows).min(planes.height);
    for (row, y) in (window.y as usize..bottom).enumerate() {
        // SAFETY: rows from `y` to `bottom` and `count` columns from `x` lie in the planes, and the
        // strip has as many.
        unsafe {
            let from = strip.add(row * PITCH * PANEL);
            let to = planes.start.add(y * planes.width + window.x as usize);
            for column in (0..if whole > 0 { count } else { 0 }).step_by(COLUMNS) {
                let start = column.min(count - COLUMNS);
                for channel in (0..whole).step_by(S::WIDTH) {
                    let columns = std::array::from_fn(|index| simd.load(from.add((start + index) * PANEL + channel)));
                    let rows = to.add(channel * planes.plane() + start);
                    simd.store_transposed(columns, rows, planes.plane());
                }
            }
            for channel in whole..planes.channels {
                for column in 0..count {
                    let value = from.add(column * PANEL + channel).read();
                    to.add(channel * planes.plane() + column).write(value);
                }
            }
        }
    }
}
