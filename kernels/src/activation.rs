/// What is applied to a layer's sums before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The sum itself.
    #[default]
    Identity,
    /// `max(sum, 0)`; what is not a number stays so, and a diverged network shows.
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply(self, sum: f32) -> f32 {
        match self {
            Self::Identity => sum,
            Self::Relu if sum < 0.0 => 0.0,
            Self::Relu => sum,
        }
    }
}
