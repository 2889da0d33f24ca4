//! Two convolutions, one after another, some rows at a time: what lies between them is never whole in memory.

use std::ops::Range;

use kernels::fake_quantize::{self, Grid};
use rayon::prelude::*;

use super::{Convolution, Weights};
use crate::engine::tract::chain::Form;

/// Floats between the two from which on it is worth it.
const LEAST: usize = 1 << 20;

/// Rows of a band, at least.
const LEAST_ROWS: usize = 32;

/// Rows of its neighbours that a band computes on each side: what the border's zeros spoil, one row by each convolution.
const MARGIN: usize = 2;

/// Two convolutions, one after another.
#[derive(Clone, Copy)]
pub(in crate::engine::tract) struct Pair<'a> {
    /// Where the first one's input is rounded before.
    pub grid: Option<Grid>,
    pub first: &'a Convolution,
    pub second: &'a Convolution,
}

/// How the rows of a [`Pair`] of which the second pools are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::tract) struct Bands {
    count: usize,
}

/// Rows of a band.
struct Band {
    /// Those that it is for; the first is even, so that no window of the pooling is cut.
    own: Range<usize>,
    /// Those that it computes.
    all: Range<usize>,
}

impl Bands {
    /// As few as need no more than `room` floats of working memory for a picture, where that saves much.
    pub fn of(pair: Pair<'_>, room: usize) -> Option<Self> {
        let Pair { first, second, .. } = pair;
        let is_single = |layer: &Convolution| matches!(layer.weights, Weights::Floats(_));
        let fits = is_single(first) && is_single(second) && !first.pooled && second.pooled;
        // The input is rounded in the place of what the first one gives.
        let fits = fits && first.shape.in_channels <= first.shape.out_channels;
        // Of a single column nothing is left behind the pooling.
        let fits = fits && first.shape.width > 1;
        if !fits || first.output_len(1, first.form_to(second)) < LEAST.max(room) {
            return None;
        }
        let mut counts = (2..=first.shape.height / LEAST_ROWS).map(|count| Self { count });
        // The form that the second gives makes no difference here: it has no fewer channels than are computed.
        counts.find(|bands| bands.working_len(1, pair, Form::Panels) <= room)
    }

    /// Floats of working memory for a batch, where the second convolution gives that form.
    pub fn working_len(self, batch: usize, Pair { first, second, .. }: Pair<'_>, to: Form) -> usize {
        let rows = self.bands(first.shape.height).map(|band| band.all.len()).max().unwrap_or(0);
        let (first, second) = (first.with_height(rows), second.with_height(rows));
        let between = first.output_len(batch, first.form_to(&second));
        batch * first.shape.input_len() + between + second.output_len(batch, to)
    }

    fn bands(self, height: usize) -> impl Iterator<Item = Band> {
        let start = move |index: usize| if index == self.count { height } else { height / 2 * index / self.count * 2 };
        (0..self.count).map(move |index| {
            let own = start(index)..start(index + 1);
            let all = own.start.saturating_sub(MARGIN)..height.min(own.end + MARGIN);
            Band { own, all }
        })
    }

    /// Computes a batch `[batch, channels, height, width]`, and calls `done` for each band with 0, 1 and, where the input is
    /// rounded first, 2: the number of what has been done.
    pub fn run(
        self,
        batch: usize,
        Pair { grid, first, second }: Pair<'_>,
        (input, working): (&[f32], &mut [f32]),
        (output, to): (&mut [f32], Form),
        mut done: impl FnMut(usize),
    ) {
        let height = first.shape.height;
        for Band { own, all } in self.bands(height) {
            let (first, second) = (first.with_height(all.len()), second.with_height(all.len()));
            let between = first.form_to(&second);
            let (taken, rest) = working.split_at_mut(batch * first.shape.input_len());
            let (middle, rest) = rest.split_at_mut(first.output_len(batch, between));
            let made = &mut rest[..second.output_len(batch, to)];
            let rows = (input, height, all.start);
            match grid {
                None => copy_rows(first.shape.width, rows, (taken, all.len(), 0), all.len()),
                Some(grid) => {
                    // What the convolution makes of it comes to the same place only then.
                    let unrounded = &mut middle[..taken.len()];
                    copy_rows(first.shape.width, rows, (unrounded, all.len(), 0), all.len());
                    fake_quantize::forward(grid, unrounded, taken);
                    done(0);
                }
            }
            first.run(batch, (taken, Form::Planes), (middle, between));
            done(usize::from(grid.is_some()));
            second.run(batch, (middle, between), (made, to));
            let (from, place) = ((own.start - all.start) / 2, own.start / 2);
            let rows = (&*made, all.len() / 2, from);
            copy_rows(second.row_len(to), rows, (output, height / 2, place), own.end / 2 - place);
            done(usize::from(grid.is_some()) + 1);
        }
    }
}

/// Copies `count` rows of each plane of one array to another one, both of them so many rows high, from and to a row on.
fn copy_rows(
    row: usize,
    (from, from_height, from_row): (&[f32], usize, usize),
    (to, to_height, to_row): (&mut [f32], usize, usize),
    count: usize,
) {
    let planes = to.par_chunks_exact_mut(to_height * row).zip(from.par_chunks_exact(from_height * row));
    planes.for_each(|(to, from)| {
        to[to_row * row..][..count * row].copy_from_slice(&from[from_row * row..][..count * row]);
    });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kernels::{
        Activation,
        conv3x3::{Algorithm, Shape, TransformedWeights},
    };

    use super::*;

    /// Single precision rounds otherwise where tiles begin elsewhere.
    const TOLERANCE: f32 = 1e-4;

    fn convolution(algorithm: Algorithm, shape: Shape, pooled: bool) -> Convolution {
        let wave = |count: usize, speed: f32| (0..count).map(move |index| (index as f32 * speed).sin());
        let weight: Vec<f32> = wave(shape.weight_len(), 0.7).map(|value| 0.3 * value).collect();
        let weights = TransformedWeights::with_algorithm(algorithm, shape, &weight);
        Convolution {
            shape,
            weights: Weights::Floats(Arc::new(weights)),
            bias: wave(shape.out_channels, 1.3).collect(),
            activation: Activation::Relu,
            grid: None,
            pooled,
        }
    }

    #[test]
    fn bands_compute_what_the_whole_does() {
        for (height, width) in [(64, 20), (67, 13), (70, 5)] {
            let shape = Shape { batch: 1, in_channels: 3, out_channels: 20, height, width };
            let first = convolution(Algorithm::Direct, shape, false);
            let second = convolution(Algorithm::Winograd6, Shape { in_channels: 20, out_channels: 17, ..shape }, true);
            for (batch, to) in [(1, Form::Planes), (3, Form::Planes), (2, Form::Panels)] {
                let input: Vec<f32> = (0..batch * shape.input_len()).map(|index| (index as f32 * 0.37).cos()).collect();
                let between = first.form_to(&second);
                let mut middle = vec![0.0; first.output_len(batch, between)];
                let mut expected = vec![0.0; second.output_len(batch, to)];
                let grid = (batch != 3).then_some(Grid { scale: 0.1, lowest: -10.0, highest: 10.0 });
                let mut taken = input.clone();
                if let Some(grid) = grid {
                    fake_quantize::forward(grid, &input, &mut taken);
                }
                first.run(batch, (&taken, Form::Planes), (&mut middle, between));
                second.run(batch, (&middle, between), (&mut expected, to));
                let pair = Pair { grid, first: &first, second: &second };
                let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
                assert!(largest > 0.1, "{largest}");
                for count in [2, 3, 5] {
                    let bands = Bands { count };
                    let mut working = vec![f32::NAN; bands.working_len(batch, pair, to)];
                    let mut found = vec![f32::NAN; expected.len()];
                    let mut calls = vec![0; if grid.is_some() { 3 } else { 2 }];
                    let places = (&input[..], &mut working[..]);
                    bands.run(batch, pair, places, (&mut found, to), |layer| calls[layer] += 1);
                    assert!(calls.iter().all(|&calls| calls == count), "{calls:?}");
                    for (found, expected) in found.iter().zip(&expected) {
                        assert!((found - expected).abs() <= TOLERANCE * largest, "{count} bands: {found} {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn there_are_as_few_as_fit() {
        let shape = Shape { batch: 1, in_channels: 3, out_channels: 64, height: 224, width: 224 };
        let convolutions = |shape: Shape| {
            let first = convolution(Algorithm::Direct, shape, false);
            (first, convolution(Algorithm::Winograd4, Shape { in_channels: 64, ..shape }, true))
        };
        let (first, second) = convolutions(shape);
        let pair = Pair { grid: None, first: &first, second: &second };
        let room = 128 * 112 * 112;
        let bands = Bands::of(pair, room).expect("a large map");
        let working = |count| Bands { count }.working_len(1, pair, Form::Panels);
        assert!(working(bands.count) <= room && working(bands.count - 1) > room, "{bands:?}");
        assert_eq!(Bands::of(pair, 1000), None, "no band is so low");
        let (first, second) = convolutions(Shape { height: 32, width: 32, ..shape });
        assert_eq!(Bands::of(Pair { grid: None, first: &first, second: &second }, 0), None, "it would save little");
        let (first, second) = convolutions(Shape { height: 1 << 15, width: 1, ..shape });
        assert_eq!(Bands::of(Pair { grid: None, first: &first, second: &second }, 1 << 20), None, "no row is left");
    }
}
