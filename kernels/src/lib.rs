//! The hot loops of training and serving a VGG network on a CPU, on plain `f32` slices.
//!
//! Nothing here knows an engine: activations are NCHW, convolution weights OIHW, dense weights
//! `[outputs, inputs]`, all contiguous. Every function overwrites its outputs, runs on the current
//! rayon pool, and panics only if a slice does not have the length that its shape asks for, which
//! is a mistake of the calling program, never of its user.
//!
//! | module | does |
//! |---|---|
//! | [`conv3x3`] | 3×3 convolution, stride 1, padding 1: forward and both gradients |
//! | [`pool2x2`] | 2×2 max-pooling with the winner's index, and its gradient |
//! | [`relu`] | ReLU in place, and its gradient |
//! | [`dense`] | fully connected layer: forward and both gradients |
//! | [`fake_quantize`] | rounding to a quantized network's grid |
//! | [`softmax`] | softmax, and sparse softmax cross-entropy with its gradient |
//! | [`adam`] | fused in-place Adam |
//! | [`peak`] | the processor's fastest multiply-adds, for comparison |
//! | [`resize`] | bilinear resize of interleaved bytes to normalised planes |
//!
//! ```
//! use kernels::{Activation, conv3x3};
//!
//! let shape = conv3x3::Shape { batch: 1, in_channels: 1, out_channels: 1, height: 2, width: 2 };
//! let mut sums = [0.0; 4];
//! conv3x3::forward(shape, &[1.0, 2.0, 3.0, 4.0], &[1.0; 9], None, Activation::Identity, &mut sums);
//! assert_eq!(sums, [10.0; 4]);
//! ```

mod activation;
mod matrix;
mod scratch;
mod simd;

pub mod adam;
pub mod conv3x3;
pub mod dense;
pub mod fake_quantize;
pub mod peak;
pub mod pool2x2;
pub mod relu;
pub mod resize;
pub mod softmax;

pub use activation::Activation;
pub use simd::InstructionSet;
