//! Plain Rust: what the other sets are compared with, and what runs under Miri. The compiler
//! turns it into the vectors that every processor of the target has.

use half::f16;

use super::{COLUMNS, Simd};

const WIDTH: usize = 4;

#[derive(Clone, Copy)]
pub(super) struct Portable;

#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Vector([f32; WIDTH]);

impl Vector {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| f(self.0[lane], other.0[lane])))
    }
}

impl Simd for Portable {
    type Vector = Vector;

    const WIDTH: usize = WIDTH;
    const ROWS: usize = 2;

    #[inline(always)]
    fn splat(self, value: f32) -> Vector {
        Vector([value; WIDTH])
    }

    #[inline(always)]
    fn add(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| a * b)
    }

    #[inline(always)]
    fn mul_add(self, a: Vector, b: Vector, c: Vector) -> Vector {
        // `f32::mul_add` would call a library function where there is no such instruction.
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn larger(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| if a > b || a.is_nan() { a } else { b })
    }

    #[inline(always)]
    fn div(self, a: Vector, b: Vector) -> Vector {
        a.zip(b, |a, b| a / b)
    }

    #[inline(always)]
    fn sum(self, a: Vector) -> f32 {
        (a.0[0] + a.0[2]) + (a.0[1] + a.0[3])
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Vector {
        // SAFETY: the caller promises `WIDTH` readable floats.
        Vector(unsafe { from.cast::<[f32; WIDTH]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_integers(self, from: *const i8) -> Vector {
        // SAFETY: the caller promises `WIDTH` readable integers.
        let integers = unsafe { from.cast::<[i8; WIDTH]>().read() };
        Vector(std::array::from_fn(|lane| f32::from(integers[lane])))
    }

    #[inline(always)]
    unsafe fn load_halves(self, from: *const f16) -> Vector {
        // SAFETY: the caller promises `WIDTH` readable numbers.
        let halves = unsafe { from.cast::<[f16; WIDTH]>().read_unaligned() };
        Vector(std::array::from_fn(|lane| halves[lane].to_f32()))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, vector: Vector) {
        // SAFETY: the caller promises `WIDTH` writable floats.
        unsafe { to.cast::<[f32; WIDTH]>().write_unaligned(vector.0) }
    }

    #[inline(always)]
    unsafe fn load_transposed(self, from: *const f32, stride: usize) -> [Vector; COLUMNS] {
        std::array::from_fn(|column| {
            Vector(std::array::from_fn(|row| {
                // SAFETY: the caller promises `COLUMNS` readable floats in each of `WIDTH` rows.
                unsafe { from.add(row * stride + column).read() }
            }))
        })
    }

    #[inline(always)]
    unsafe fn store_transposed(self, columns: [Vector; COLUMNS], to: *mut f32, stride: usize) {
        for row in 0..WIDTH {
            for (column, vector) in columns.iter().enumerate() {
                // SAFETY: the caller promises `COLUMNS` writable floats in each of `WIDTH` rows.
                unsafe { to.add(row * stride + column).write(vector.0[row]) };
            }
        }
    }
}
