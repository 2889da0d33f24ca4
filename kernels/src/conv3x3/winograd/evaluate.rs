//! Evaluation of the tiles of a tensor at the points, in panels of channels.

use std::ops::Range;

use super::tiles::{Grid, PITCH, Planes, Segment, Window, clear, gather, longest};
use super::transform;
use crate::conv3x3::Layout;
use crate::scratch::LINE;
use crate::simd::{Operation, PANEL, Simd};

/// What is evaluated, cut into the tiles of a grid.
#[derive(Clone, Copy)]
pub(super) struct Tensor<'a> {
    pub values: &'a [f32],
    pub channels: usize,
    pub layout: Layout,
    pub grid: Grid,
}

impl Tensor<'_> {
    pub fn panels(self) -> usize {
        self.channels.div_ceil(PANEL)
    }

    #[inline(always)]
    fn planes(self, picture: usize, panel: usize) -> Planes<*const f32> {
        let Grid { height, width, .. } = self.grid;
        let channel = panel * PANEL;
        Planes {
            start: self.values[(picture * self.channels + channel) * height * width..].as_ptr(),
            channels: (self.channels - channel).min(PANEL),
            height,
            width,
        }
    }

    /// The rows that a window sees, where the tensor lies in panels. What is outside the plane has no row, and reads as
    /// zeros; only the columns inside it may be read.
    #[inline(always)]
    fn rows<const N: usize>(self, picture: usize, panel: usize, window: Window) -> [*const f32; N] {
        static ZEROS: [f32; PITCH * PANEL] = [0.0; PITCH * PANEL];
        let Grid { height, width, .. } = self.grid;
        let plane = self.values[(picture * self.panels() + panel) * height * width * PANEL..].as_ptr();
        std::array::from_fn(|row| {
            let y = window.y + row as isize;
            if y < 0 || y >= height as isize {
                return ZEROS.as_ptr();
            }
            plane.wrapping_offset((y * width as isize + window.x) * PANEL as isize)
        })
    }
}

/// Floats between the values of two points: an odd number of lines, so that the values of one tile
/// do not fall into the same set of a cache.
pub(super) fn point_stride(panels: usize, tiles: usize) -> usize {
    ((panels * tiles) | 1) * LINE
}

/// Writes Bᵀ d B of one panel of channels to `to`, `[N²][tiles][PANEL]` with a stride between the
/// points.
///
/// # Safety
/// The lines must be writable, by nobody else, and `strip` hold [`strip_len`](super::tiles)
/// floats.
#[inline(always)]
pub(super) unsafe fn data<S: Simd, const N: usize>(
    simd: S,
    source: Tensor,
    tiles: Range<usize>,
    panel: usize,
    strip: *mut f32,
    to: (*mut f32, usize),
) {
    let side = N - 2;
    for segment in source.grid.segments(tiles, longest::<N>()) {
        let window = Window {
            y: segment.y as isize - 1,
            x: segment.x as isize - 1,
            rows: N,
            columns: segment.length * side + 2,
        };
        // SAFETY: the planes are a part of the tensor, and a segment is never longer than a strip,
        // all of whose columns up to the window's are written before they are read.
        unsafe {
            let strip_rows: [*mut f32; N] = std::array::from_fn(|row| strip.add(row * PITCH * PANEL));
            let (from, columns) = match source.layout {
                Layout::Planes => {
                    gather(simd, source.planes(segment.picture, panel), window, strip);
                    (strip_rows.map(<*mut f32>::cast_const), 0..window.columns)
                }
                Layout::Panels => {
                    let inside = window.inside(source.grid.width);
                    for row in strip_rows {
                        clear(simd, row, 0..inside.start);
                        clear(simd, row, inside.end..window.columns);
                    }
                    (source.rows(segment.picture, panel, window), inside)
                }
            };
            for offset in (columns.start * PANEL..columns.end * PANEL).step_by(S::WIDTH) {
                let mut column = [simd.splat(0.0); N];
                for (value, row) in column.iter_mut().zip(from) {
                    *value = simd.load(row.wrapping_add(offset));
                }
                for (value, row) in transform::data::<S, N>(simd, column).into_iter().zip(strip_rows) {
                    simd.store(row.add(offset), value);
                }
            }
            rows::<S, Data, N, N>(simd, segment, strip, to);
        }
    }
}

/// Writes A dY Aᵀ of one panel of channels to `to`, as [`data`] does.
///
/// # Safety
/// As for [`data`].
#[inline(always)]
pub(super) unsafe fn gradient<S: Simd, const N: usize, const M: usize>(
    simd: S,
    source: Tensor,
    tiles: Range<usize>,
    panel: usize,
    strip: *mut f32,
    to: (*mut f32, usize),
) {
    for segment in source.grid.segments(tiles, longest::<N>()) {
        let window = Window { y: segment.y as isize, x: segment.x as isize, rows: M, columns: segment.length * M };
        // SAFETY: as in `data`; the strip has N rows, of which the window fills the first M.
        unsafe {
            gather(simd, source.planes(segment.picture, panel), window, strip);
            for offset in (0..window.columns * PANEL).step_by(S::WIDTH) {
                let at = |row: usize| strip.add(row * PITCH * PANEL + offset);
                let mut column = [simd.splat(0.0); M];
                for (row, value) in column.iter_mut().enumerate() {
                    *value = simd.load(at(row));
                }
                let column = transform::gradient::<S, N, M>(simd, column);
                for (row, value) in column.iter().enumerate() {
                    simd.store(at(row), *value);
                }
            }
            rows::<S, Gradient, N, M>(simd, segment, strip, to);
        }
    }
}

/// A transform from `L` values to `N`, as a type: a function passed as a value would be compiled by
/// itself, without the instructions of the set.
trait Transform<const N: usize, const L: usize> {
    fn apply<S: Simd>(simd: S, values: [S::Vector; L]) -> [S::Vector; N];
}

struct Data;

impl<const N: usize> Transform<N, N> for Data {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, values: [S::Vector; N]) -> [S::Vector; N] {
        transform::data(simd, values)
    }
}

struct Gradient;

impl<const N: usize, const M: usize> Transform<N, M> for Gradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, values: [S::Vector; M]) -> [S::Vector; N] {
        transform::gradient(simd, values)
    }
}

/// Transforms each row of each tile of a strip from `L` columns to `N` values, and stores them.
///
/// # Safety
/// `N` rows of the strip must be readable, and the lines writable, by nobody else.
#[inline(always)]
unsafe fn rows<S: Simd, T: Transform<N, L>, const N: usize, const L: usize>(
    simd: S,
    segment: Segment,
    strip: *const f32,
    (to, stride): (*mut f32, usize),
) {
    for tile in 0..segment.length {
        for row in 0..N {
            for lane in (0..PANEL).step_by(S::WIDTH) {
                // SAFETY: passed on to the caller.
                unsafe {
                    let from = strip.add((row * PITCH + tile * (N - 2)) * PANEL + lane);
                    let line = to.add((segment.offset + tile) * PANEL + lane);
                    let mut values = [simd.splat(0.0); L];
                    for (x, value) in values.iter_mut().enumerate() {
                        *value = simd.load(from.add(x * PANEL));
                    }
                    for (x, value) in T::apply(simd, values).iter().enumerate() {
                        simd.store(line.add((row * N + x) * stride), *value);
                    }
                }
            }
        }
    }
}

/// [`data`] as an operation of its own.
pub(super) struct DataPanel<'a, const N: usize> {
    pub source: Tensor<'a>,
    pub tiles: Range<usize>,
    pub panel: usize,
    pub strip: &'a mut [f32],
    pub to: *mut f32,
    pub stride: usize,
}

impl<const N: usize> Operation for DataPanel<'_, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (strip, to) = (self.strip.as_mut_ptr(), (self.to, self.stride));
        // SAFETY: whoever makes the operation has pointed it at lines for its own tiles and panel.
        unsafe { data::<S, N>(simd, self.source, self.tiles, self.panel, strip, to) }
    }
}

/// [`gradient`] as an operation of its own.
pub(super) struct GradientPanel<'a, const N: usize, const M: usize> {
    pub source: Tensor<'a>,
    pub tiles: Range<usize>,
    pub panel: usize,
    pub strip: &'a mut [f32],
    pub to: *mut f32,
    pub stride: usize,
}

impl<const N: usize, const M: usize> Operation for GradientPanel<'_, N, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (strip, to) = (self.strip.as_mut_ptr(), (self.to, self.stride));
        // SAFETY: as for `DataPanel`.
        unsafe { gradient::<S, N, M>(simd, self.source, self.tiles, self.panel, strip, to) }
    }
}
