/// What is applied to a layer's sums before they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Activation {
    /// The sum itself.
    #[default]
    Identity,
    /// `max(sum, 0)`.
    Relu,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply(self, sum: f32) -> f32 {
        match self {
            Self::Identity => sum,
            Self::Relu => sum.max(0.0),
        }
    }
}
