//! What the tests of engines share: small files that `testdata/make.py` wrote, pictures, and tolerances.

pub(crate) const TINY: &[u8] = include_bytes!("../testdata/tiny.onnx");
pub(crate) const QDQ: &[u8] = include_bytes!("../testdata/tiny-qdq.onnx");
pub(crate) const QOPERATOR: &[u8] = include_bytes!("../testdata/tiny-qoperator.onnx");
pub(crate) const DYNAMIC: &[u8] = include_bytes!("../testdata/tiny-dynamic.onnx");
pub(crate) const HALF: &[u8] = include_bytes!("../testdata/tiny-half.onnx");
pub(crate) const FOREIGN: &[u8] = include_bytes!("../testdata/foreign-softmax.onnx");
pub(crate) const FIXED: &[u8] = include_bytes!("../testdata/fixed-batch.onnx");

/// The same arithmetic in another order.
pub(crate) const CLOSE: f32 = 1e-5;

/// Where a quantizer's scale is measured from the picture, a value that lies halfway between two integers may be
/// rounded up by one engine and down by another: a step of 2/255 in what the last layer takes, times its largest
/// weight, 1.504.
pub(crate) const ONE_GRID_STEP: f32 = 0.0118;

/// Preprocessed pictures for these files: of those that the references were computed on, the first.
pub(crate) fn preprocessed(pictures: usize) -> Vec<f32> {
    (0..pictures * 3 * 12 * 12).map(|index| (index * 37 % 256) as f32 / 255.0).collect()
}

pub(crate) fn assert_within(tolerance: f32, left: &[f32], right: &[f32], context: &str) {
    assert_eq!(left.len(), right.len(), "{context}");
    for (left, right) in left.iter().zip(right) {
        assert!((left - right).abs() <= tolerance * (1.0 + right.abs()), "{left} for {right}: {context}");
    }
}
