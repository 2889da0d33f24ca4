use super::{
    background::{Background, Ground, linear},
    bean::{Bean, Surface},
    chance::Chance,
    noise::{blend, ramp},
    roast::Roast,
};

/// Samples per pixel along each side.
const SAMPLES: usize = 2;
/// Pale remains of the skin, in linear light.
const SILVERSKIN: [f32; 3] = [0.56, 0.43, 0.28];

/// A bean on a background under a lamp and the sky.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    bean: Bean,
    background: Background,
    /// The bean's skin in linear light.
    color: [f32; 3],
    gloss: f32,
    polish: f32,
    light: Light,
}

/// What is at one point.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    bean: Surface,
    /// Not looked at where the bean covers it.
    ground: Ground,
}

#[derive(Clone, Copy, Debug)]
struct Light {
    /// From the table to the lamp, of length 1.
    direction: [f32; 3],
    lamp: [f32; 3],
    sky: [f32; 3],
    /// How the lamp's light falls off over the picture, to the right and down.
    gradient: [f32; 2],
    /// How wide the edge of the shadow is.
    softness: f32,
}

impl Light {
    fn random(chance: &mut Chance) -> Self {
        let (azimuth, elevation) = (chance.angle(), chance.between(0.62, 1.2));
        let direction = [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()];
        let strength = chance.between(0.76, 1.24);
        // Towards red where positive, towards blue where negative: from a bulb to a clouded sky.
        let warmth = chance.around(0.12);
        let tint = chance.around(0.03);
        let color = [1.0 + warmth, 1.0 + tint, 1.0 - warmth];
        let share = chance.between(0.52, 0.72);
        Self {
            direction,
            lamp: color.map(|channel| channel * strength * share * 1.25),
            sky: color.map(|channel| (0.7 * channel + 0.3) * strength * (1.0 - share) * 1.1),
            gradient: [chance.around(0.16), chance.around(0.16)],
            softness: chance.between(0.03, 0.16),
        }
    }
}

impl Scene {
    pub(super) fn random(roast: &Roast, chance: &mut Chance) -> Self {
        let share = chance.unit();
        let [from, to] = roast.colors;
        let color: [f32; 3] = std::array::from_fn(|channel| {
            linear((blend(from[channel], to[channel], share) + chance.around(5.0)).max(4.0))
        });
        Self {
            bean: Bean::random(roast, chance),
            background: Background::random(chance),
            color,
            gloss: chance.between(roast.gloss[0], roast.gloss[1]),
            polish: chance.between(roast.polish[0], roast.polish[1]),
            light: Light::random(chance),
        }
    }

    /// The picture in linear light: `size × size × 3` values, 1 being white paper in average light.
    pub(super) fn render(&self, size: usize) -> Vec<f32> {
        let side = size * SAMPLES;
        let step = 2.0 / side as f32;
        // One sample more on the right and below, for slopes.
        let stride = side + 1;
        let mut samples = vec![Sample::default(); stride * stride];
        for (row, line) in samples.chunks_exact_mut(stride).enumerate() {
            for (column, sample) in line.iter_mut().enumerate() {
                let (x, y) = (column as f32 * step - 1.0, row as f32 * step - 1.0);
                sample.bean = self.bean.at(x, y, 1.2 * step);
                if sample.bean.cover < 1.0 {
                    sample.ground = self.background.at(x, y);
                }
            }
        }
        let mut light = vec![0.0; size * size * 3];
        let share = 1.0 / (SAMPLES * SAMPLES) as f32;
        for row in 0..side {
            for column in 0..side {
                let here = row * stride + column;
                let around = [here, here + 1, here + stride].map(|index| samples[index]);
                let point = [column as f32 * step - 1.0, row as f32 * step - 1.0];
                let seen = self.shade(point, around, step);
                let pixel = (row / SAMPLES * size + column / SAMPLES) * 3;
                for (sum, value) in light[pixel..pixel + 3].iter_mut().zip(seen) {
                    *sum += share * value;
                }
            }
        }
        light
    }

    /// The light from a point, given what is there, to the right of it and below it.
    fn shade(&self, [x, y]: [f32; 2], [here, right, below]: [Sample; 3], step: f32) -> [f32; 3] {
        let Light { gradient, .. } = self.light;
        let fall = (1.0 + gradient[0] * x + gradient[1] * y).max(0.2);
        let cover = here.bean.cover;
        let mut seen = [0.0; 3];
        if cover < 1.0 {
            // Below the bean's edge the background was not looked at: it is level there.
            let slope = |next: Sample| {
                if next.bean.cover < 1.0 { (next.ground.height - here.ground.height) / step } else { 0.0 }
            };
            seen = self.ground(x, y, here.ground, [slope(right), slope(below)]).map(|value| (1.0 - cover) * value);
        }
        if cover > 0.0 {
            let slopes = [right, below].map(|next| (next.bean.height - here.bean.height) / step);
            for (sum, value) in seen.iter_mut().zip(self.skin(&here.bean, slopes)) {
                *sum += cover * value;
            }
        }
        seen.map(|value| value * fall)
    }

    /// What the background shows, with the bean's shadow on it.
    fn ground(&self, x: f32, y: f32, ground: Ground, slopes: [f32; 2]) -> [f32; 3] {
        let Light { direction, lamp, sky, softness, .. } = self.light;
        let facing = facing(slopes, direction);
        let reach = 0.75 * self.bean.thickness() / direction[2];
        // The shadow of a solid is that of its slices: the foot's and, farther off, the top's.
        let lit = [0.0, 0.45, 0.9].into_iter().fold(1.0, |lit: f32, share| {
            let (x, y) = (x + reach * share * direction[0], y + reach * share * direction[1]);
            lit.min(ramp(-0.02, softness, self.bean.outside(x, y) + 0.16 * share))
        });
        let open = 0.45 + 0.55 * ramp(-0.02, 0.20, self.bean.outside(x, y));
        let color = self.background.color;
        std::array::from_fn(|channel| {
            color[channel] * ground.gain * (lamp[channel] * facing * lit + sky[channel] * open)
        })
    }

    /// What the bean's skin shows.
    fn skin(&self, surface: &Surface, slopes: [f32; 2]) -> [f32; 3] {
        let Light { direction, lamp, sky, .. } = self.light;
        let diffuse = facing(slopes, direction);
        // Half-way between the lamp and the eye, which looks straight down.
        let half = [direction[0], direction[1], direction[2] + 1.0];
        let length = (half[0] * half[0] + half[1] * half[1] + half[2] * half[2]).sqrt();
        let shine = facing(slopes, half.map(|part| part / length)).powf(self.polish) * surface.open;
        let upward = 1.0 / (1.0 + slopes[0] * slopes[0] + slopes[1] * slopes[1]).sqrt();
        let open = surface.open * (0.45 + 0.55 * upward);
        let tone = (1.0 + surface.tone).clamp(0.25, 1.8);
        std::array::from_fn(|channel| {
            let color = blend(self.color[channel] * tone, SILVERSKIN[channel], surface.pale.clamp(0.0, 0.85));
            let received = lamp[channel] * diffuse * surface.open + sky[channel] * open;
            color * received + lamp[channel] * self.gloss * shine * 0.8
        })
    }
}

/// The cosine between the normal of a surface with these slopes and a direction; 0 where it faces away.
fn facing(slopes: [f32; 2], direction: [f32; 3]) -> f32 {
    let steepness = (1.0 + slopes[0] * slopes[0] + slopes[1] * slopes[1]).sqrt();
    ((direction[2] - slopes[0] * direction[0] - slopes[1] * direction[1]) / steepness).max(0.0)
}
