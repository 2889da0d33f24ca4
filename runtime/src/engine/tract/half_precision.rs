//! Half precision in a file becomes single precision in the graph.
//!
//! tract does not accept half-precision `Gemm`, and a CPU computes in single precision anyway. Weights are
//! those of the file exactly; values between layers are rounded less than the file asks for.

use half::f16;
use tract_onnx::pb::{GraphProto, ModelProto, TensorProto, ValueInfoProto, tensor_proto::DataType, type_proto::Value};

use super::weights::widened;
use crate::error::Cause;

const HALF: i32 = DataType::Float16 as i32;
const SINGLE: i32 = DataType::Float as i32;

/// Rewrites every declaration, constant and cast of half precision.
pub(super) fn widen(proto: &mut ModelProto) -> Result<(), Cause> {
    proto.graph.as_mut().map_or(Ok(()), widen_graph)
}

fn widen_graph(graph: &mut GraphProto) -> Result<(), Cause> {
    graph.input.iter_mut().chain(&mut graph.output).for_each(widen_value);
    graph.initializer.iter_mut().try_for_each(widen_tensor)?;
    for node in &mut graph.node {
        for attribute in &mut node.attribute {
            if node.op_type == "Cast" && attribute.name == "to" && attribute.i == i64::from(HALF) {
                attribute.i = i64::from(SINGLE);
            }
            attribute.t.as_mut().map_or(Ok(()), widen_tensor)?;
            attribute.g.as_mut().map_or(Ok(()), widen_graph)?;
        }
    }
    Ok(())
}

fn widen_value(value: &mut ValueInfoProto) {
    let kind = value.r#type.as_mut().and_then(|kind| kind.value.as_mut());
    if let Some(Value::TensorType(tensor)) = kind
        && tensor.elem_type == HALF
    {
        tensor.elem_type = SINGLE;
    }
}

fn widen_tensor(tensor: &mut TensorProto) -> Result<(), Cause> {
    if tensor.data_type != HALF {
        return Ok(());
    }
    if !tensor.external_data.is_empty() {
        return Err(format!(
            "the half-precision weight '{}' lies in another file, which tract cannot use",
            tensor.name
        )
        .into());
    }
    tensor.data_type = SINGLE;
    // Where there are no raw bytes, each value is the low half of a 32-bit integer.
    let integers = std::mem::take(&mut tensor.int32_data);
    tensor.float_data = if tensor.raw_data.is_empty() {
        integers.into_iter().map(|bits| f16::from_bits(bits as u16).to_f32()).collect()
    } else {
        std::mem::take(&mut tensor.raw_data).chunks_exact(2).map(widened).collect()
    };
    Ok(())
}
