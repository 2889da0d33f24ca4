use super::{chance::Chance, noise::Noise};

/// What the bean lies on.
#[derive(Clone, Debug)]
pub(super) struct Background {
    /// Linear light that it reflects on average.
    pub(super) color: [f32; 3],
    material: Material,
    strength: f32,
    /// Cosine and sine of the direction of its grain.
    turn: [f32; 2],
    scale: f32,
    noise: Noise,
}

/// The background at one point.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ground {
    /// How much more or less it reflects than on average, as a factor.
    pub(super) gain: f32,
    /// Height above the table.
    pub(super) height: f32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Material {
    Paper,
    Wood,
    Cloth,
    Stone,
}

/// sRGB colours that a background is near to, of each material.
const PAPERS: [[f32; 3]; 6] = [
    [232.0, 232.0, 230.0],
    [206.0, 208.0, 212.0],
    [226.0, 216.0, 196.0],
    [150.0, 168.0, 186.0],
    [172.0, 184.0, 164.0],
    [96.0, 100.0, 108.0],
];
const WOODS: [[f32; 3]; 4] = [[196.0, 158.0, 112.0], [148.0, 108.0, 72.0], [104.0, 74.0, 52.0], [214.0, 190.0, 152.0]];
const CLOTHS: [[f32; 3]; 5] =
    [[198.0, 178.0, 142.0], [118.0, 126.0, 140.0], [216.0, 212.0, 204.0], [136.0, 112.0, 96.0], [84.0, 96.0, 104.0]];
const STONES: [[f32; 3]; 4] = [[168.0, 168.0, 166.0], [74.0, 76.0, 80.0], [122.0, 118.0, 112.0], [206.0, 202.0, 196.0]];

impl Background {
    pub(super) fn random(chance: &mut Chance) -> Self {
        let material = *chance.pick(&[Material::Paper, Material::Wood, Material::Cloth, Material::Stone]);
        let colors: &[[f32; 3]] = match material {
            Material::Paper => &PAPERS,
            Material::Wood => &WOODS,
            Material::Cloth => &CLOTHS,
            Material::Stone => &STONES,
        };
        let base = *chance.pick(colors);
        let brightness = chance.around(18.0);
        let color = base.map(|sample| linear((sample + brightness + chance.around(7.0)).clamp(8.0, 250.0)));
        let angle = chance.angle();
        Self {
            color,
            material,
            strength: chance.between(0.5, 1.2),
            turn: [angle.cos(), angle.sin()],
            scale: chance.between(0.8, 1.3),
            noise: Noise::new(chance.seed()),
        }
    }

    /// What it is like at a point.
    pub(super) fn at(&self, x: f32, y: f32) -> Ground {
        let [cosine, sine] = self.turn;
        let (x, y) = ((x * cosine + y * sine) * self.scale, (y * cosine - x * sine) * self.scale);
        let noise = self.noise;
        let (tone, height) = match self.material {
            Material::Paper => {
                (0.04 * noise.layered(x * 1.5, y * 1.5, 2), 0.004 * noise.layered(x * 34.0, y * 34.0, 2))
            }
            Material::Wood => {
                let bent = y * 7.0 + 1.6 * noise.layered(x * 0.7, y * 2.0, 2);
                let rings = (bent * 3.0 + noise.at(x * 0.5, bent)).sin();
                let fibre = noise.layered(x * 3.0, y * 46.0, 3);
                (0.10 * rings + 0.20 * fibre, 0.006 * fibre)
            }
            Material::Cloth => {
                let threads = 46.0;
                let (across, down) = ((x * threads + noise.at(x * 3.0, y * 3.0)).sin(), (y * threads).sin());
                let weave = 0.5 * (across + down) + 0.3 * noise.layered(x * 9.0, y * 9.0, 2);
                (0.13 * weave, 0.010 * weave)
            }
            Material::Stone => {
                let cloud = noise.layered(x * 3.0, y * 3.0, 3);
                let speck = noise.layered(x * 26.0, y * 26.0, 2);
                (0.16 * cloud + 0.22 * speck, 0.004 * speck)
            }
        };
        Ground { gain: (1.0 + self.strength * tone).max(0.1), height: self.strength * height }
    }
}

/// Linear light from 0 to 1 of an sRGB sample from 0 to 255 (IEC 61966-2-1).
pub(super) fn linear(sample: f32) -> f32 {
    let sample = sample / 255.0;
    if sample <= 0.04045 { sample / 12.92 } else { ((sample + 0.055) / 1.055).powf(2.4) }
}
