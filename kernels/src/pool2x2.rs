//! 2×2 max-pooling with stride 2. An odd last row or column is left out, as PyTorch's default and
//! Keras's `valid` padding do.

use rayon::prelude::*;

/// Pooled rows that one task handles at least.
const ROWS: usize = 16;

/// Sizes of the pooled tensor. `planes` is batch × channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Planes, each pooled by itself.
    pub planes: usize,
    /// Rows of an input plane.
    pub height: usize,
    /// Columns of an input plane.
    pub width: usize,
}

impl Shape {
    /// Floats in the input, `[planes, height, width]`.
    pub fn input_len(self) -> usize {
        self.planes * self.height * self.width
    }

    /// Floats in the output, `[planes, height / 2, width / 2]`.
    pub fn output_len(self) -> usize {
        self.planes * self.output_plane()
    }

    fn output_plane(self) -> usize {
        (self.height / 2) * (self.width / 2)
    }
}

/// Writes the largest of each 2×2 window, and to `indices` which of the four it was: 0 and 1 the
/// upper left and right, 2 and 3 the lower ones; the first on ties. A NaN in the window wins.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn forward(shape: Shape, input: &[f32], output: &mut [f32], indices: Option<&mut [u8]>) {
    assert_eq!(input.len(), shape.input_len(), "length of the input of {shape:?}");
    assert_eq!(output.len(), shape.output_len(), "length of the output of {shape:?}");
    if let Some(indices) = indices.as_deref() {
        assert_eq!(indices.len(), shape.output_len(), "length of the indices of {shape:?}");
    }
    if shape.output_len() == 0 {
        return;
    }
    let (in_plane, out_plane) = (shape.height * shape.width, shape.output_plane());
    let out_width = shape.width / 2;
    let planes = input.par_chunks_exact(in_plane).zip(output.par_chunks_exact_mut(out_plane));
    let least = (ROWS / (shape.height / 2)).max(1);
    match indices {
        Some(indices) => {
            planes.zip(indices.par_chunks_exact_mut(out_plane)).with_min_len(least).for_each(|((from, to), indices)| {
                let rows = to.chunks_exact_mut(out_width).zip(indices.chunks_exact_mut(out_width));
                for (pair, (to, indices)) in from.chunks_exact(2 * shape.width).zip(rows) {
                    let (upper, lower) = pair.split_at(shape.width);
                    winners(upper, lower, to, indices);
                }
            })
        }
        None => planes.with_min_len(least).for_each(|(from, to)| {
            for (pair, to) in from.chunks_exact(2 * shape.width).zip(to.chunks_exact_mut(out_width)) {
                let (upper, lower) = pair.split_at(shape.width);
                largest(upper, lower, to);
            }
        }),
    }
}

/// Gradient with respect to the input: each window's gradient goes to its winner, and everything
/// else gets zero, an odd last row or column too.
///
/// # Panics
/// If a slice does not have the length that `shape` asks for.
pub fn backward(shape: Shape, indices: &[u8], grad_output: &[f32], grad_input: &mut [f32]) {
    assert_eq!(indices.len(), shape.output_len(), "length of the indices of {shape:?}");
    assert_eq!(grad_output.len(), shape.output_len(), "length of the gradient of {shape:?}");
    assert_eq!(grad_input.len(), shape.input_len(), "length of the input of {shape:?}");
    if shape.output_len() == 0 {
        grad_input.fill(0.0);
        return;
    }
    let (in_plane, out_plane) = (shape.height * shape.width, shape.output_plane());
    let (width, out_width) = (shape.width, shape.width / 2);
    grad_input
        .par_chunks_exact_mut(in_plane)
        .zip(grad_output.par_chunks_exact(out_plane).zip(indices.par_chunks_exact(out_plane)))
        .with_min_len((ROWS / (shape.height / 2)).max(1))
        .for_each(|(to, (from, indices))| {
            let (pairs, uncovered) = to.split_at_mut(shape.height / 2 * 2 * width);
            uncovered.fill(0.0);
            let rows = from.chunks_exact(out_width).zip(indices.chunks_exact(out_width));
            for (pair, (from, indices)) in pairs.chunks_exact_mut(2 * width).zip(rows) {
                let (upper, lower) = pair.split_at_mut(width);
                scatter(from, indices, upper, lower);
            }
        });
}

/// The comparison keeps the first of equals and lets a NaN win, as PyTorch does.
#[inline(always)]
fn better(challenger: f32, champion: f32) -> bool {
    challenger > champion || challenger.is_nan()
}

fn largest(upper: &[f32], lower: &[f32], to: &mut [f32]) {
    let windows = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
    for (to, (u, l)) in to.iter_mut().zip(windows) {
        let mut best = u[0];
        for challenger in [u[1], l[0], l[1]] {
            best = if better(challenger, best) { challenger } else { best };
        }
        *to = best;
    }
}

fn winners(upper: &[f32], lower: &[f32], to: &mut [f32], indices: &mut [u8]) {
    let windows = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
    for ((to, index), (u, l)) in to.iter_mut().zip(indices).zip(windows) {
        let mut best = u[0];
        let mut winner = 0;
        for (position, challenger) in [(1, u[1]), (2, l[0]), (3, l[1])] {
            let wins = better(challenger, best);
            best = if wins { challenger } else { best };
            winner = if wins { position } else { winner };
        }
        *to = best;
        *index = winner;
    }
}

fn scatter(from: &[f32], indices: &[u8], upper: &mut [f32], lower: &mut [f32]) {
    let (upper_pairs, upper_rest) = upper.as_chunks_mut::<2>();
    let (lower_pairs, lower_rest) = lower.as_chunks_mut::<2>();
    upper_rest.fill(0.0);
    lower_rest.fill(0.0);
    let windows = upper_pairs.iter_mut().zip(lower_pairs);
    for ((&gradient, &index), (u, l)) in from.iter().zip(indices).zip(windows) {
        let share = |position: u8| if index == position { gradient } else { 0.0 };
        *u = [share(0), share(1)];
        *l = [share(2), share(3)];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pooled(shape: Shape, input: &[f32]) -> (Vec<f32>, Vec<u8>) {
        let mut output = vec![0.0; shape.output_len()];
        let mut indices = vec![0; shape.output_len()];
        forward(shape, input, &mut output, Some(&mut indices));
        (output, indices)
    }

    #[test]
    fn first_of_equals_wins_and_odd_edges_are_left_out() {
        let shape = Shape { planes: 1, height: 3, width: 5 };
        let input = [1.0, 1.0, 2.0, 5.0, 9.0, 1.0, 1.0, 5.0, 3.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0];
        assert_eq!(pooled(shape, &input), (vec![1.0, 5.0], vec![0, 1]));
        let mut grad_input = [7.0; 15];
        backward(shape, &[0, 1], &[10.0, 20.0], &mut grad_input);
        let mut expected = [0.0; 15];
        (expected[0], expected[3]) = (10.0, 20.0);
        assert_eq!(grad_input, expected);
    }

    proptest! {
        #[test]
        fn the_winner_is_the_largest_and_takes_the_gradient(
            planes in 1_usize..4,
            height in 1_usize..9,
            width in 1_usize..9,
            values in proptest::collection::vec(-3_i8..4, 4 * 9 * 9),
        ) {
            let shape = Shape { planes, height, width };
            let input: Vec<f32> =
                values[..shape.input_len()].iter().copied().map(f32::from).collect();
            let (output, indices) = pooled(shape, &input);
            let mut plain = vec![0.0; output.len()];
            forward(shape, &input, &mut plain, None);
            prop_assert_eq!(&plain, &output);
            let mut grad_input = vec![f32::NAN; input.len()];
            backward(shape, &indices, &output, &mut grad_input);
            let mut expected = vec![0.0; input.len()];
            let (rows, columns) = (height / 2, width / 2);
            for o in 0..output.len() {
                let (p, y, x) = (o / (rows * columns), o / columns % rows, o % columns);
                let at = |i: usize| (p * height + 2 * y + i / 2) * width + 2 * x + i % 2;
                let best = (0..4).rev().max_by(|&a, &b| input[at(a)].total_cmp(&input[at(b)]));
                let best = best.unwrap_or(0);
                prop_assert_eq!(usize::from(indices[o]), best);
                prop_assert_eq!(output[o], input[at(best)]);
                expected[at(best)] = output[o];
            }
            prop_assert_eq!(grad_input, expected);
        }
    }
}
