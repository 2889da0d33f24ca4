//! Serves an ONNX picture classifier through tract or ONNX Runtime.
