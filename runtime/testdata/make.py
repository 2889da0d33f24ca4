"""Writes the small ONNX files that the tests of this crate read.

pip install onnx numpy onnxruntime; python make.py
"""

import json
import os

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE, CLASSES = 12, 3
random = np.random.RandomState(7)


def normal(*shape, scale):
    return (random.randn(*shape) * scale).astype(np.float32)


WEIGHTS = {
    "block1_conv1.weight": normal(8, 3, 3, 3, scale=0.3),
    "block1_conv1.bias": normal(8, scale=0.1),
    "block2_conv1.weight": normal(16, 8, 3, 3, scale=0.2),
    "block2_conv1.bias": normal(16, scale=0.1),
    "predictions.weight": normal(CLASSES, 16, scale=0.5),
    "predictions.bias": normal(CLASSES, scale=0.1),
}

PREPROCESS = {
    "height": SIZE, "width": SIZE, "fit": "stretch", "filter": "bilinear", "antialias": False,
    "channel_order": "rgb", "scale": 1 / 255, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0],
}
METADATA = {
    "names": json.dumps({"0": "dark", "1": "green", "2": "light"}),
    "demitasse.preprocess": json.dumps(PREPROCESS),
    "demitasse.metrics": json.dumps([{"data": "nothing", "engine": "none", "correct": 1, "pictures": 3}]),
    "demitasse.provenance": json.dumps(
        {"created_by": "make.py", "weights": None, "data": None, "epochs": 0, "quantization": None}
    ),
}


def convolution(number, source, weight, bias):
    name = f"block{number}_conv1"
    return [
        helper.make_node("Conv", [source, weight, bias], [f"{name}_out"], name, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", [f"{name}_out"], [f"{name}_relu_out"], f"{name}_relu"),
    ]


def pool(number, source):
    name = f"block{number}_pool"
    return helper.make_node("MaxPool", [source], [f"{name}_out"], name, kernel_shape=[2, 2], strides=[2, 2])


def head(source, weight, bias, output):
    return [
        helper.make_node("GlobalAveragePool", [source], ["gap_out"], "global_average_pool"),
        helper.make_node("Flatten", ["gap_out"], ["flatten_out"], "flatten", axis=1),
        helper.make_node("Gemm", ["flatten_out", weight, bias], [output], "predictions", transB=1),
    ]


def plain(output="logits"):
    nodes = convolution(1, "input", "block1_conv1.weight", "block1_conv1.bias")
    nodes += [pool(1, "block1_conv1_relu_out")]
    nodes += convolution(2, "block1_pool_out", "block2_conv1.weight", "block2_conv1.bias")
    return nodes + head("block2_conv1_relu_out", "predictions.weight", "predictions.bias", output)


def tensors(values):
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def save(name, nodes, values, metadata, shape=("N", 3, SIZE, SIZE), outputs=(("logits", ("N", CLASSES)),), extra=()):
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape), *extra]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, tensors(values))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="make.py", ir_version=8)
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, os.path.join(HERE, name))


def quantized():
    """Static QDQ: weights int8 per output channel; activations uint8, asymmetric where they are negative.

    Every processor and every order of summation gives the same numbers: scales are powers of two, so that sums are
    exact; weights stay within 64, so that `vpmaddubsw`, which x86 processors without VNNI multiply with, does not
    saturate; and no value lies halfway between two integers where it is rounded.
    """
    values, nodes = {}, []

    def constant(name, value, dtype):
        values[name] = np.asarray(value, dtype)
        return name

    def activation(source, scale, zero_point):
        scale = constant(f"{source}.scale", scale, np.float32)
        zero_point = constant(f"{source}.zero_point", zero_point, np.uint8)
        nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero_point], [f"{source}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{source}_q", scale, zero_point], [f"{source}_dq"]))
        return f"{source}_dq"

    def weight(layer, source_scale):
        value = WEIGHTS[f"{layer}.weight"]
        scale = np.exp2(np.ceil(np.log2(np.abs(value).reshape(len(value), -1).max(1) / 64)))
        shaped = scale.reshape(-1, *[1] * (value.ndim - 1))
        names = [
            constant(f"{layer}.weight_q", np.rint(value / shaped), np.int8),
            constant(f"{layer}.weight.scale", scale, np.float32),
            constant(f"{layer}.weight.zero_point", np.zeros(len(value)), np.int8),
        ]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"{layer}.weight_dq"], axis=0))
        names = [
            constant(f"{layer}.bias_q", np.rint(WEIGHTS[f"{layer}.bias"] / (scale * source_scale)), np.int32),
            constant(f"{layer}.bias.scale", scale * source_scale, np.float32),
            constant(f"{layer}.bias.zero_point", np.zeros(len(value)), np.int32),
        ]
        nodes.append(helper.make_node("DequantizeLinear", names, [f"{layer}.bias_dq"], axis=0))
        return f"{layer}.weight_dq", f"{layer}.bias_dq"

    source = activation("input", 1 / 128, 102)
    nodes += convolution(1, source, *weight("block1_conv1", 1 / 128))
    source = activation("block1_conv1_relu_out", 1 / 64, 0)
    nodes += [pool(1, source)]
    source = activation("block1_pool_out", 1 / 64, 0)
    nodes += convolution(2, source, *weight("block2_conv1", 1 / 64))
    source = activation("block2_conv1_relu_out", 1 / 64, 0)
    # The mean of 6 × 6 integers k / 64 is rounded to multiples of 13 / 2304: k / 13, which is never halfway.
    mean = 13 / (64 * 36)
    nodes += head(source, *weight("predictions", mean), "logits")
    flatten = next(node for node in nodes if node.op_type == "Flatten")
    gemm = next(node for node in nodes if node.op_type == "Gemm")
    nodes.remove(gemm)
    gemm.input[0] = activation(flatten.output[0], mean, 0)
    nodes.append(gemm)
    return nodes, values


def half():
    """Weights and values in half precision between an input and an output in single precision."""
    nodes = [
        helper.make_node("Cast", ["input"], ["input_half"], "to_half", to=TensorProto.FLOAT16),
        *plain("logits_half"),
        helper.make_node("Cast", ["logits_half"], ["logits"], "to_single", to=TensorProto.FLOAT),
    ]
    nodes[1].input[0] = "input_half"
    return nodes, {name: value.astype(np.float16) for name, value in WEIGHTS.items()}


def operators_on_integers(model, output, pictures):
    """ONNX Runtime's own quantizer, with operators that it adds to ONNX's, and what it computes from them."""

    class Reader:
        batches = ({"input": picture[np.newaxis]} for picture in pictures)

        def get_next(self):
            return next(self.batches, None)

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(model, output, Reader(), QuantFormat.QOperator, per_channel=True, reduce_range=True, **types)
    quantized = onnx.load(output)
    del quantized.metadata_props[:]
    helper.set_model_props(quantized, METADATA)
    onnx.save(quantized, output)
    session = InferenceSession(output, providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, {"input": picture[np.newaxis]})[0] for picture in pictures])
    logits.tofile(output.replace(".onnx", ".logits"))


if __name__ == "__main__":
    save("tiny.onnx", plain(), WEIGHTS, METADATA)
    save("tiny-half.onnx", *half(), METADATA)
    tiny, dynamic = [os.path.join(HERE, name) for name in ["tiny.onnx", "tiny-dynamic.onnx"]]
    # The reduced range is 7 bits: on x86 processors without VNNI, ONNX Runtime's products of 8 saturate.
    quantize_dynamic(tiny, dynamic, weight_type=QuantType.QInt8, reduce_range=True)
    save("tiny-qdq.onnx", *quantized(), METADATA)
    softmax = [*plain("logits"), helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1)]
    names = {"names": "{0: 'dark', 1: 'green', 2: \"light's\"}"}
    save("foreign-softmax.onnx", softmax, WEIGHTS, names, outputs=[("probabilities", ("N", CLASSES))])
    save("fixed-batch.onnx", plain(), WEIGHTS, METADATA, (2, 3, SIZE, SIZE), [("logits", (2, CLASSES))])
    nhwc = [helper.make_node("Transpose", ["input"], ["nchw"], "transpose", perm=[0, 3, 1, 2]), *plain()]
    nhwc[1].input[0] = "nchw"
    save("channels-last.onnx", nhwc, WEIGHTS, {}, ("N", SIZE, SIZE, 3))

    pictures = ((np.arange(8 * 3 * SIZE * SIZE) * 37 % 256).astype(np.float32) / np.float32(255)).reshape(8, 3, SIZE, SIZE)
    operators_on_integers(tiny, os.path.join(HERE, "tiny-qoperator.onnx"), pictures)

    # What the files compute, by ONNX's own evaluator, which shares no code with either engine.
    from onnx.reference import ReferenceEvaluator

    for name in ["tiny", "tiny-qdq", "tiny-dynamic", "tiny-half"]:
        model = onnx.load(os.path.join(HERE, f"{name}.onnx"))
        # The evaluator knows quantization since operator set 19; these operators mean the same in 17.
        model.opset_import[0].version = 19
        evaluator = ReferenceEvaluator(model)
        # Picture by picture: a dynamic quantizer's scale depends on all that it sees at once.
        rows = [evaluator.run(None, {"input": picture[np.newaxis]})[0] for picture in pictures]
        logits = np.concatenate(rows)
        assert logits.shape == (8, CLASSES) and logits.dtype == np.float32
        logits.tofile(os.path.join(HERE, f"{name}.logits"))
