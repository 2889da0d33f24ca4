//! A safe face for the `gemm` crate: row-major or strided `f32` products.

/// Where a matrix lies in a slice: element `(r, c)` at `r * row_stride + c * column_stride`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub rows: usize,
    pub columns: usize,
    pub row_stride: usize,
    pub column_stride: usize,
}

impl Layout {
    pub fn row_major(rows: usize, columns: usize) -> Self {
        Self { rows, columns, row_stride: columns, column_stride: 1 }
    }

    pub fn with_row_stride(self, row_stride: usize) -> Self {
        Self { row_stride, ..self }
    }

    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride }
    }

    /// How many floats a slice needs to hold the matrix.
    fn extent(self) -> usize {
        if self.rows == 0 || self.columns == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride + 1
    }
}

/// What becomes of the destination's old content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    Overwrite,
    Accumulate,
}

/// `destination (+)= left × right`, over all threads of the rayon pool.
pub(crate) fn product(
    (destination, to): (&mut [f32], Layout),
    (left, l): (&[f32], Layout),
    (right, r): (&[f32], Layout),
    update: Update,
) {
    assert!(l.columns == r.rows && to.rows == l.rows && to.columns == r.columns);
    assert!(destination.len() >= to.extent());
    assert!(left.len() >= l.extent() && right.len() >= r.extent());
    // SAFETY: the assertions above bound every address that the strides can reach by the slices'
    // lengths, and the borrow checker keeps the destination apart from both factors.
    unsafe {
        gemm::gemm(
            to.rows,
            to.columns,
            l.columns,
            destination.as_mut_ptr(),
            to.column_stride as isize,
            to.row_stride as isize,
            update == Update::Accumulate,
            left.as_ptr(),
            l.column_stride as isize,
            l.row_stride as isize,
            right.as_ptr(),
            r.column_stride as isize,
            r.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
