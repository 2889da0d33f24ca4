//! Writes a trained network as ONNX, quantized if asked, and proves that nothing was lost.
