/// Value noise: random values on a lattice, blended smoothly between. From -1 to 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noise {
    seed: u32,
}

impl Noise {
    pub(super) fn new(seed: u32) -> Self {
        Self { seed }
    }

    /// The value at a point; its features are about one unit large.
    pub(super) fn at(self, x: f32, y: f32) -> f32 {
        let (column, row) = (x.floor(), y.floor());
        let (across, down) = (smooth(x - column), smooth(y - row));
        let (column, row) = (column as i32, row as i32);
        let upper = blend(self.lattice(column, row), self.lattice(column + 1, row), across);
        let lower = blend(self.lattice(column, row + 1), self.lattice(column + 1, row + 1), across);
        blend(upper, lower, down)
    }

    /// Several sizes of features together, each half as large and half as strong as the one before.
    pub(super) fn layered(self, x: f32, y: f32, layers: u32) -> f32 {
        let (mut sum, mut weight, mut scale) = (0.0, 0.5, 1.0);
        for layer in 0..layers {
            let shifted = Self { seed: self.seed.wrapping_add(layer.wrapping_mul(0x9e37_79b9)) };
            sum += weight * shifted.at(x * scale, y * scale);
            (weight, scale) = (weight * 0.5, scale * 2.03);
        }
        sum
    }

    fn lattice(self, column: i32, row: i32) -> f32 {
        let mut bits = self.seed ^ (column as u32).wrapping_mul(0x85eb_ca6b) ^ (row as u32).wrapping_mul(0xc2b2_ae35);
        bits = (bits ^ (bits >> 15)).wrapping_mul(0x2c1b_3c6d);
        bits = (bits ^ (bits >> 12)).wrapping_mul(0x297a_2d39);
        bits ^= bits >> 15;
        (bits >> 8) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

fn smooth(share: f32) -> f32 {
    share * share * (3.0 - 2.0 * share)
}

pub(super) fn blend(from: f32, to: f32, share: f32) -> f32 {
    from + (to - from) * share
}

/// 0 below `low`, 1 above `high`, smooth between.
pub(super) fn ramp(low: f32, high: f32, value: f32) -> f32 {
    smooth(((value - low) / (high - low)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_continuous_bounded_and_does_vary() {
        let noise = Noise::new(9);
        let line: Vec<f32> = (-2000..2000).map(|step| noise.at(step as f32 * 0.01, 0.37)).collect();
        assert!(line.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.05), "a jump");
        let (least, most) = line.iter().fold((1.0f32, -1.0f32), |(low, high), &v| (low.min(v), high.max(v)));
        assert!(least >= -1.0 && most <= 1.0 && most - least > 1.0, "{least}..{most}");
    }
}
