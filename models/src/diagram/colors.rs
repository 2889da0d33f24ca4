pub(super) const CAPTION: &str = "#1e293b";
pub(super) const MUTED: &str = "#526075";
pub(super) const ARROW: &str = "#64748b";
pub(super) const LEADER: &str = "#94a3b8";

/// What a solid shows, and so its colours and its line in the legend. In the order of the legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Paint {
    Input,
    Convolution { norm: bool },
    Pool,
    Average,
    Flatten,
    Dense { last: bool },
    Dropout,
    Softmax,
}

/// The colours of one stretch of a solid: what faces the reader, what looks up, what looks right, the edges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faces {
    pub(super) front: &'static str,
    pub(super) top: &'static str,
    pub(super) side: &'static str,
    pub(super) edge: &'static str,
}

const fn faces(front: &'static str, top: &'static str, side: &'static str, edge: &'static str) -> Faces {
    Faces { front, top, side, edge }
}

const PICTURE: Faces = faces("#cbd5e1", "#e2e8f0", "#eef2f7", "#64748b");
const CONVOLUTION: Faces = faces("#f9cf7c", "#fde4b0", "#f2bd5c", "#a86f1c");
const NORM: Faces = faces("#8fc9bd", "#b9e0d8", "#79b8ab", "#3f8577");
const CONVOLUTION_RELU: Faces = faces("#ee9c4a", "#f7bd83", "#eda75e", "#a85f1c");
const POOL: Faces = faces("#d1604d", "#e48e7f", "#c9574a", "#8a2f24");
const AVERAGE: Faces = faces("#9b7cc8", "#bda8de", "#8768b6", "#57408a");
const FLATTEN: Faces = faces("#dde3ea", "#eef2f6", "#c8d1dc", "#7b8797");
const DENSE: Faces = faces("#86b3dc", "#b4d2ec", "#6f9fcc", "#3b6c9c");
const DENSE_RELU: Faces = faces("#4f86bd", "#84acd4", "#4378ad", "#2b5985");
const DROPOUT: Faces = faces("#f4f5f7", "#ffffff", "#e6e9ee", "#9aa5b4");
const SOFTMAX: Faces = faces("#6cb28a", "#9ccfb2", "#5aa079", "#2f6f4d");

impl Paint {
    pub(super) fn legend(self) -> String {
        let text = match self {
            Paint::Input => "input picture",
            Paint::Convolution { norm: false } => "3×3 convolution + ReLU",
            Paint::Convolution { norm: true } => "3×3 convolution + batch norm + ReLU",
            Paint::Pool => "2×2 max pooling",
            Paint::Average => "global average pooling",
            Paint::Flatten => "flatten",
            Paint::Dense { last: false } => "fully connected + ReLU",
            Paint::Dense { last: true } => "fully connected",
            Paint::Dropout => "dropout (in training)",
            Paint::Softmax => "softmax",
        };
        text.to_owned()
    }

    /// The stretches from left to right: what is computed first, then what follows it at once.
    pub(super) fn stretches(self) -> &'static [Faces] {
        match self {
            Paint::Input => &[PICTURE],
            Paint::Convolution { norm: false } => &[CONVOLUTION, CONVOLUTION_RELU],
            Paint::Convolution { norm: true } => &[CONVOLUTION, NORM, CONVOLUTION_RELU],
            Paint::Pool => &[POOL],
            Paint::Average => &[AVERAGE],
            Paint::Flatten => &[FLATTEN],
            Paint::Dense { last: false } => &[DENSE, DENSE_RELU],
            Paint::Dense { last: true } => &[DENSE],
            Paint::Dropout => &[DROPOUT],
            Paint::Softmax => &[SOFTMAX],
        }
    }
}
