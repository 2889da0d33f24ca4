use super::{
    chance::Chance,
    noise::{Noise, ramp},
    roast::Roast,
};

/// No point of a bean is farther out than this, as a square of its distance in units of the axes: the boxiest
/// outline reaches 1.12, and unevenness and blur little more.
const FARTHEST: f32 = 1.6;

/// One bean: its outline, its relief and its skin. Lengths are in halves of the picture's side.
#[derive(Clone, Debug)]
pub(super) struct Bean {
    centre: [f32; 2],
    /// Cosine and sine of the rotation.
    turn: [f32; 2],
    /// Half the length and half the breadth.
    axes: [f32; 2],
    /// 2 is an ellipse; more is boxier.
    exponent: f32,
    /// One end broader than the other, and the whole bent like a kidney.
    taper: f32,
    bend: f32,
    crease: Crease,
    wrinkles: f32,
    mottling: f32,
    silverskin: f32,
    relief: Noise,
    skin: Noise,
}

/// The groove along the flat side.
#[derive(Clone, Copy, Debug)]
struct Crease {
    /// How far it lies beside the middle, since the bean may have rolled.
    offset: f32,
    /// Amplitude and phase of its S.
    swing: f32,
    phase: f32,
    width: f32,
    depth: f32,
}

/// What the bean is like at one point.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Surface {
    /// Share of the point that the bean covers, from 0 to 1.
    pub(super) cover: f32,
    /// Height above the table.
    pub(super) height: f32,
    /// Light that gets down to it, from 0 to 1: little in the crease.
    pub(super) open: f32,
    /// How much lighter or darker the skin is here than on average.
    pub(super) tone: f32,
    /// Pale silverskin, from 0 to 1.
    pub(super) pale: f32,
}

fn within(chance: &mut Chance, [low, high]: [f32; 2]) -> f32 {
    chance.between(low, high)
}

impl Bean {
    pub(super) fn random(roast: &Roast, chance: &mut Chance) -> Self {
        let angle = chance.angle();
        let length = chance.between(0.50, 0.76);
        Self {
            centre: [chance.around(0.16), chance.around(0.16)],
            turn: [angle.cos(), angle.sin()],
            axes: [length, length * chance.between(0.66, 0.82)],
            exponent: chance.between(2.0, 2.4),
            taper: chance.around(0.10),
            bend: chance.around(0.10),
            crease: Crease {
                offset: chance.around(0.26),
                swing: chance.between(0.03, 0.13) * if chance.happens(0.5) { 1.0 } else { -1.0 },
                phase: chance.around(0.5),
                width: chance.between(0.032, 0.058),
                depth: chance.between(0.05, 0.10),
            },
            wrinkles: within(chance, roast.wrinkles),
            mottling: within(chance, roast.mottling),
            silverskin: within(chance, roast.silverskin),
            relief: Noise::new(chance.seed()),
            skin: Noise::new(chance.seed()),
        }
    }

    /// Coordinates along and across the bean, in units of its axes, of a point of the picture.
    fn local(&self, x: f32, y: f32) -> [f32; 2] {
        let (x, y) = (x - self.centre[0], y - self.centre[1]);
        let [cosine, sine] = self.turn;
        let along = (x * cosine + y * sine) / self.axes[0];
        let across = (y * cosine - x * sine) / self.axes[1];
        [along, across * (1.0 + self.taper * along) + self.bend * (along * along - 0.35)]
    }

    /// 0 in the middle, 1 on the outline.
    #[inline]
    fn radius(&self, [along, across]: [f32; 2]) -> f32 {
        let sum = along.abs().powf(self.exponent) + across.abs().powf(self.exponent);
        sum.powf(1.0 / self.exponent)
    }

    /// About how far a point is outside the outline, in halves of the picture's side; negative inside. An
    /// ellipse will do, because only shadows ask.
    pub(super) fn outside(&self, x: f32, y: f32) -> f32 {
        let [along, across] = self.local(x, y);
        ((along * along + across * across).sqrt() - 1.0) * self.axes[1]
    }

    /// The highest point above the table.
    pub(super) fn thickness(&self) -> f32 {
        self.axes[1] * 0.62
    }

    /// The bean at a point of the picture; `blur` is how wide its edge is.
    pub(super) fn at(&self, x: f32, y: f32, blur: f32) -> Surface {
        let local = self.local(x, y);
        let [along, across] = local;
        if along * along + across * across > FARTHEST {
            return Surface::default();
        }
        // A little unevenness, so that no outline is a formula's.
        let uneven = 0.035 * self.relief.layered(along * 1.7 + 11.0, across * 1.7, 2);
        let radius = self.radius(local) * (1.0 + uneven);
        let cover = 1.0 - ramp(-blur, blur, (radius - 1.0) * self.axes[1]);
        if cover <= 0.0 {
            return Surface::default();
        }
        let dome = (1.0 - radius.min(1.0).powf(2.7)).max(0.0).powf(0.55);
        let Crease { offset, swing, phase, width, depth } = self.crease;
        let wander = 0.02 * self.relief.at(along * 5.0, 40.0);
        let middle = offset * (1.0 - 0.5 * along * along) + swing * ((along * 2.6 + phase).sin()) + wander;
        // The groove narrows and closes towards both ends.
        let reach = 1.0 - ramp(0.72, 1.0, along.abs());
        let beside = (across - middle) * self.axes[1] / (width * (0.55 + 0.45 * reach));
        let groove = (-beside * beside).exp() * (0.25 + 0.75 * reach);
        let lips = 0.35 * (-(beside.abs() - 2.1).powi(2) / 1.2).exp() * reach;

        // Wrinkles run along the bean and fan out from the crease.
        let wrinkle = self.relief.layered(along * 4.0 + across, across * 13.0 + beside * 0.1, 3);
        let grain = self.relief.layered(x * 38.0, y * 38.0, 2);
        let rough = self.wrinkles * (0.020 * wrinkle + 0.006 * grain) * dome.min(1.0);
        let height = self.thickness() * dome + depth * (lips * 0.5 - groove) * dome + rough;

        let patch = self.skin.layered(along * 2.6, across * 2.6, 3);
        let speck = self.skin.layered(x * 30.0, y * 30.0, 2);
        let flake =
            ramp(0.42 - 0.16 * self.silverskin, 0.62, self.skin.layered(along * 7.0 + 60.0, across * 10.0, 3) * 1.6);
        let thread =
            groove * ramp(-0.15, 0.35, self.skin.layered(along * 6.0, 90.0 + beside * 0.3, 2) + self.silverskin - 0.55);
        Surface {
            cover,
            height,
            open: 1.0 - 0.78 * groove * (1.0 - 0.45 * thread),
            tone: self.mottling * (1.5 * patch + 0.7 * speck) + 0.10 * self.wrinkles * wrinkle,
            pale: self.silverskin * (0.75 * thread + 0.35 * flake * (1.0 - groove)),
        }
    }
}
