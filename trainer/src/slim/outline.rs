//! Networks of fewer channels and layers, as plans.

use models::{Architecture, BATCH_NORM_EPSILON, Head, KeptConvolution};

/// The fewest channels that a convolution is left with.
const LEAST_CHANNELS: usize = 4;
/// The share of its channels that a convolution keeps at least from one network to the next.
const LEAST_SHARE: f64 = 0.5;
/// Channels of a first, wide student come in multiples of so many.
const MULTIPLE: usize = 8;

/// Which convolutions of a network, and which of their channels, a smaller one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    blocks: Vec<Vec<KeptConvolution>>,
}

/// How much the logits change without each channel, convolution by convolution.
pub(super) type Importance = [Vec<f64>];

impl Outline {
    /// The whole network.
    pub(super) fn of(network: &Architecture) -> Self {
        let mut number = 0;
        let mut kept = |width: &usize| {
            number += 1;
            KeptConvolution { number: number - 1, channels: (0..*width).collect() }
        };
        Self { blocks: network.blocks.iter().map(|widths| widths.iter().map(&mut kept).collect()).collect() }
    }

    /// All convolutions of a network, each with the same share of its channels, the most important ones, so that with
    /// global average pooling there are no more than so many parameters.
    pub(super) fn thinned(network: &Architecture, importance: &Importance, most_parameters: usize) -> Self {
        let whole = Self::of(network);
        let share = |share: f64| {
            let mut outline = whole.clone();
            for (kept, importance) in outline.blocks.iter_mut().flatten().zip(importance) {
                let width = kept.channels.len();
                let multiple = (width as f64 * share / MULTIPLE as f64).round() as usize * MULTIPLE;
                keep_most_important(kept, importance, multiple.clamp(MULTIPLE.min(width), width));
            }
            outline
        };
        // In steps of a sixty-fourth: finer ones change no width but the largest.
        let fits = |outline: &Self| outline.parameters(network) <= most_parameters;
        let shares = (1..=64).rev().map(|part| share(f64::from(part) / 64.0));
        shares.into_iter().find(fits).unwrap_or_else(|| share(0.0))
    }

    /// Without the convolution that costs least to miss for its parameters: one that has others in its block, or all of a
    /// last block. None where there is only one left.
    pub(super) fn shallower(&self, network: &Architecture, importance: &Importance) -> Option<Self> {
        let alone = |block: usize| self.blocks[block].len() == 1;
        let places =
            self.blocks.iter().enumerate().flat_map(|(block, kept)| (0..kept.len()).map(move |at| (block, at)));
        let droppable = places.filter(|&(block, _)| !alone(block) || block > 0 && block + 1 == self.blocks.len());
        let whole = self.parameters(network);
        let without = |(block, at): (usize, usize)| {
            let mut outline = self.clone();
            let kept = outline.blocks[block].remove(at);
            outline.blocks.retain(|kept| !kept.is_empty());
            let saved = whole.saturating_sub(outline.parameters(network)).max(1);
            let cost: f64 = kept.channels.iter().map(|&channel| importance[kept.number][channel]).sum();
            (cost / saved as f64, outline)
        };
        droppable.map(without).min_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, outline)| outline)
    }

    /// With channels removed, those that cost least for the parameters that they save first, until there are no more than
    /// so many parameters, or no convolution can spare any.
    pub(super) fn narrower(&self, network: &Architecture, importance: &Importance, most_parameters: usize) -> Self {
        let mut outline = self.clone();
        let least: Vec<usize> = self
            .convolutions()
            .map(|kept| ((kept.channels.len() as f64 * LEAST_SHARE).ceil() as usize).max(LEAST_CHANNELS))
            .collect();
        while outline.parameters(network) > most_parameters {
            let savings = outline.savings(network);
            let cheapest = outline.convolutions().enumerate().filter(|(at, kept)| kept.channels.len() > least[*at]);
            let cheapest = cheapest.filter_map(|(at, kept)| {
                let importance = |channel: &usize| importance[kept.number][*channel];
                let channel =
                    kept.channels.iter().min_by(|one, other| importance(one).total_cmp(&importance(other)))?;
                Some((importance(channel) / savings[at] as f64, at, *channel))
            });
            let Some((_, at, channel)) = cheapest.min_by(|(one, ..), (other, ..)| one.total_cmp(other)) else { break };
            if let Some(kept) = outline.blocks.iter_mut().flatten().nth(at) {
                kept.channels.retain(|kept| *kept != channel);
            }
        }
        outline
    }

    /// The parameters that one channel less of each convolution saves: its own filter with bias and batch normalisation,
    /// and its part of what follows.
    fn savings(&self, network: &Architecture) -> Vec<usize> {
        let widths: Vec<usize> = self.convolutions().map(|kept| kept.channels.len()).collect();
        let saving = |at: usize| {
            let inputs = if at == 0 { network.input[0] } else { widths[at - 1] };
            9 * inputs + 5 + widths.get(at + 1).map_or(network.classes, |next| 9 * next)
        };
        (0..widths.len()).map(saving).collect()
    }

    /// What each convolution is, in their order.
    pub(super) fn convolutions(&self) -> impl Iterator<Item = &KeptConvolution> {
        self.blocks.iter().flatten()
    }

    /// The channels of each convolution, block by block.
    pub(super) fn widths(&self) -> Vec<Vec<usize>> {
        let width = |kept: &KeptConvolution| kept.channels.len();
        self.blocks.iter().map(|block| block.iter().map(width).collect()).collect()
    }

    /// Stored values of the network: batch normalisation, and global average pooling in front of the logits.
    fn parameters(&self, network: &Architecture) -> usize {
        let slim = Architecture {
            blocks: self.widths(),
            head: Head::GlobalAveragePool,
            batch_norm: true,
            batch_norm_epsilon: BATCH_NORM_EPSILON,
            ..network.clone()
        };
        slim.parameters()
    }
}

fn keep_most_important(kept: &mut KeptConvolution, importance: &[f64], count: usize) {
    kept.channels.sort_by(|&one, &other| importance[other].total_cmp(&importance[one]).then(one.cmp(&other)));
    kept.channels.truncate(count);
    kept.channels.sort_unstable();
}

#[cfg(test)]
mod tests {
    use models::Family;

    use super::*;

    /// The later a channel, the more it matters.
    fn rising(network: &Architecture) -> Vec<Vec<f64>> {
        network.blocks.iter().flatten().map(|&width| (1..=width).map(|channel| channel as f64).collect()).collect()
    }

    fn network() -> Architecture {
        Architecture {
            blocks: vec![vec![8, 8], vec![16, 16]],
            batch_norm: true,
            head: Head::GlobalAveragePool,
            ..vgg()
        }
    }

    fn vgg() -> Architecture {
        Architecture::vgg(Family::Vgg16, 4)
    }

    #[test]
    fn a_thinned_network_keeps_the_most_important_channels_of_every_layer() {
        let outline = Outline::thinned(&vgg(), &rising(&vgg()), 1_000_000);
        let parameters = outline.parameters(&vgg());
        assert!((800_000..=1_000_000).contains(&parameters), "{parameters}");
        assert_eq!(outline.widths().iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 3, 3, 3]);
        for (kept, width) in outline.convolutions().zip(vgg().blocks.concat()) {
            let count = kept.channels.len();
            assert!(count.is_multiple_of(MULTIPLE) && count < width, "{count} of {width}");
            assert_eq!(kept.channels, (width - count..width).collect::<Vec<_>>());
        }
        // No limit, no loss; an impossible one, the least.
        assert_eq!(Outline::thinned(&vgg(), &rising(&vgg()), usize::MAX), Outline::of(&vgg()));
        assert!(Outline::thinned(&vgg(), &rising(&vgg()), 1).widths().concat().iter().all(|&width| width == MULTIPLE));
    }

    #[test]
    fn channels_go_where_they_cost_least_for_what_they_save() {
        let mut importance = rising(&network());
        // Nothing of the third convolution matters, and each of its channels saves most.
        importance[2] = vec![0.0; 16];
        let whole = Outline::of(&network());
        let most = whole.parameters(&network()) - 6 * (9 * 8 + 5 + 9 * 16);
        let narrower = whole.narrower(&network(), &importance, most);
        assert_eq!(narrower.widths(), [vec![8, 8], vec![10, 16]]);
        // No layer loses more than half, nor comes below the least.
        assert_eq!(whole.narrower(&network(), &importance, 0).widths(), [vec![4, 4], vec![8, 8]]);
        let small = Outline::of(&Architecture { blocks: vec![vec![5]], ..network() });
        assert_eq!(small.narrower(&network(), &[vec![0.0; 5]], 0).widths(), [vec![4]]);
    }

    #[test]
    fn the_layer_that_matters_least_for_its_size_goes_and_the_last_block_as_a_whole() {
        let mut importance = rising(&network());
        importance[1] = vec![0.0; 8];
        let whole = Outline::of(&network());
        let outline = whole.shallower(&network(), &importance).expect("a layer to spare");
        assert_eq!(outline.convolutions().map(|kept| kept.number).collect::<Vec<_>>(), [0, 2, 3]);
        let two = Outline::of(&Architecture { blocks: vec![vec![8], vec![4]], ..network() });
        let one = two.shallower(&network(), &[vec![0.0; 8], vec![9.0; 4]]).expect("the last block");
        assert_eq!(one.widths(), [vec![8]]);
        assert_eq!(one.shallower(&network(), &[vec![0.0; 8]]), None);
    }
}
