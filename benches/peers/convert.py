"""The network of one of this project's ONNX files in the forms that other tools read.

    pip install onnx numpy
    python3 benches/peers/convert.py unpack vgg16.onnx network                # the layers, and weights as .npy files
    python3 benches/peers/convert.py litert network vgg16.tflite --batch 1    # needs tensorflow
    python3 benches/peers/convert.py ncnn network vgg16.param                 # and vgg16.bin beside it
    python3 benches/peers/convert.py mnn network vgg16.mnn --batch 1          # and vgg16.mnn.weight; needs flatbuffers

ONNX Runtime, OpenVINO and OpenCV read the ONNX file itself. The others get the same numbers from here: their own
converters want more packages, or send usage data to their makers as MNN's does.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np


class Network:
    """An unpacked network: input shape, layers, and weights that are read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        description = json.loads((folder / "network.json").read_text())
        self.folder = folder
        self.shape: list[int] = description["shape"]
        self.layers: list[dict] = description["layers"]

    def weight(self, layer: dict) -> np.ndarray:
        """Of a convolution [outputs, inputs, rows, columns], of a dense layer [outputs, inputs]; f32 or i8."""
        return np.load(self.folder / f"{layer['name']}.weight.npy")

    def bias(self, layer: dict) -> np.ndarray:
        return np.load(self.folder / f"{layer['name']}.bias.npy")

    def weight_scale(self, layer: dict) -> np.ndarray | None:
        """What one step of an i8 weight is worth, for each output; `None` where the weights are f32."""
        path = self.folder / f"{layer['name']}.weight_scale.npy"
        return np.load(path) if path.exists() else None


def unpack(model: Path, folder: Path) -> None:
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    constants = {constant.name: constant for constant in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    layers: list[dict] = []
    folder.mkdir(parents=True, exist_ok=True)

    def save(name: str, constant: str) -> None:
        np.save(folder / f"{name}.npy", numpy_helper.to_array(constants[constant]))

    def weights(node: onnx.NodeProto) -> dict:
        """Saves the weights of a layer as they are stored, and gives the scale of its input where that is quantized."""
        weight, bias = node.input[1:]
        if weight in constants:
            save(f"{node.name}.weight", weight)
            save(f"{node.name}.bias", bias)
            return {}
        dequantize = made_by[weight]
        save(f"{node.name}.weight", dequantize.input[0])
        save(f"{node.name}.weight_scale", dequantize.input[1])
        steps, scale, _ = (numpy_helper.to_array(constants[name]) for name in made_by[bias].input)
        np.save(folder / f"{node.name}.bias.npy", (steps * scale).astype(np.float32))
        _, scale, zero_point = made_by[node.input[0]].input
        if numpy_helper.to_array(constants[zero_point]) != 0:
            raise SystemExit(f"{model}: the input of {node.name} has a zero point")
        return {"input_scale": float(numpy_helper.to_array(constants[scale]))}

    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            kind = "convolution" if node.op_type == "Conv" else "dense"
            layers.append({"kind": kind, "name": node.name, "relu": False, **weights(node)})
        elif node.op_type == "Relu":
            layers[-1]["relu"] = True
        elif node.op_type in ("MaxPool", "AveragePool", "Flatten"):
            layers.append({"kind": {"MaxPool": "pool", "AveragePool": "mean"}.get(node.op_type, "flatten")})
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            raise SystemExit(f"{model}: {node.op_type} is in none of this project's VGG networks")
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim[1:]]
    (folder / "network.json").write_text(json.dumps({"shape": shape, "layers": layers}))


def torch_network(network: Network):
    import torch
    from torch import nn

    modules: list[nn.Module] = []
    for layer in network.layers:
        if layer["kind"] in ("convolution", "dense"):
            weight, bias = torch.from_numpy(network.weight(layer)), torch.from_numpy(network.bias(layer))
            outputs, inputs = weight.shape[:2]
            # On `meta` the module takes the tensors over and draws no initial weights.
            if layer["kind"] == "convolution":
                module = nn.Conv2d(inputs, outputs, 3, padding=1, device="meta")
            else:
                module = nn.Linear(inputs, outputs, device="meta")
            module.load_state_dict({"weight": weight, "bias": bias}, assign=True)
            modules.append(module)
            if layer["relu"]:
                modules.append(nn.ReLU(inplace=True))
        else:
            others = {"pool": nn.MaxPool2d(2), "mean": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
            modules.append(others[layer["kind"]])
    return nn.Sequential(*modules).eval()


def keras_network(network: Network, batch: int):
    """Takes NHWC."""
    import tensorflow

    channels, height, width = network.shape
    inputs = tensorflow.keras.Input((height, width, channels), batch)
    value, weights, flattened = inputs, [], None
    for layer in network.layers:
        kind = layer["kind"]
        if kind in ("convolution", "dense"):
            weight, bias = network.weight(layer), network.bias(layer)
            activation = "relu" if layer["relu"] else None
            if kind == "convolution":
                value = tensorflow.keras.layers.Conv2D(len(bias), 3, padding="same", activation=activation)(value)
                weight = weight.transpose(2, 3, 1, 0)
            else:
                value = tensorflow.keras.layers.Dense(len(bias), activation=activation)(value)
                if flattened is not None:
                    # The file flattens [channels, rows, columns], Keras [rows, columns, channels].
                    rows, columns, channels = flattened
                    weight = weight.reshape(-1, channels, rows, columns).transpose(0, 2, 3, 1).reshape(len(bias), -1)
                    flattened = None
                weight = weight.T
            weights += [weight, bias]
        elif kind == "pool":
            value = tensorflow.keras.layers.MaxPool2D()(value)
        elif kind == "mean":
            value = tensorflow.keras.layers.AveragePooling2D(value.shape[1:3])(value)
        else:
            flattened = value.shape[1:]
            value = tensorflow.keras.layers.Flatten()(value)
    model = tensorflow.keras.Model(inputs, value)
    model.set_weights(weights)
    return model


def litert(network: Network, output: Path, batch: int) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow

    model = keras_network(network, batch)
    output.write_bytes(tensorflow.lite.TFLiteConverter.from_keras_model(model).convert())


def ncnn(network: Network, output: Path, batch: int) -> None:
    """f32, or int8 with the file's own weights and scales.

    https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and, for int8, ncnn's `ncnn2int8`.
    """
    lines, blob = ["Input input 0 1 input"], "input"
    with output.with_suffix(".bin").open("wb") as file:
        for index, layer in enumerate(network.layers):
            kind = layer["kind"]
            if kind == "flatten":
                # InnerProduct takes maps as they are.
                continue
            name = layer.get("name", f"layer{index}")
            made = "logits" if layer is network.layers[-1] else name
            if kind in ("convolution", "dense"):
                weight, bias, scale = network.weight(layer), network.bias(layer), network.weight_scale(layer)
                # Of Convolution: outputs, kernel, padding, bias, weights. Of InnerProduct: outputs, bias, weights.
                parameters = f"0={len(bias)} 1=3 4=1 5=1 6={weight.size}"
                if kind == "dense":
                    parameters = f"0={len(bias)} 1=1 2={weight.size}"
                parameters += " 9=1" if layer["relu"] else ""
                following = network.layers[index + 1] if made != "logits" else {"kind": "end"}
                # Only between two convolutions does ncnn pass int8 on.
                requantized = scale is not None and kind == following["kind"] == "convolution"
                if scale is not None:
                    parameters += " 8=102" if requantized else " 8=2"
                np.array([0 if scale is None else 0x000D4B38], "<u4").tofile(file)
                weight.tofile(file)
                file.write(bytes(-weight.nbytes % 4))
                bias.tofile(file)
                if scale is not None:
                    (1 / scale).astype("<f4").tofile(file)
                    np.array([activation_scale(layer)], "<f4").tofile(file)
                if requantized:
                    np.array([activation_scale(following)], "<f4").tofile(file)
                operator = "Convolution" if kind == "convolution" else "InnerProduct"
            else:
                operator, parameters = "Pooling", "0=0 1=2 2=2" if kind == "pool" else "0=1 4=1"
            lines.append(f"{operator} {name} 1 1 {blob} {made} {parameters}")
            blob = made
    output.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines, ""]))


def activation_scale(layer: dict) -> float:
    """ncnn's factor from a value to -127..127, for what the file quantizes to 0..255."""
    return 127 / (255 * layer["input_scale"])


def mnn(network: Network, output: Path, batch: int) -> None:
    from mnn_file import NC4HW4, NCHW, Graph

    graph = Graph([batch, *network.shape])
    graph.convert(NCHW, NC4HW4)
    with output.with_name(f"{output.name}.weight").open("wb") as file:
        for layer in network.layers:
            kind = layer["kind"]
            if kind in ("convolution", "dense"):
                weight, bias = network.weight(layer), network.bias(layer)
                graph.convolution(weight.shape[1], len(bias), 3 if kind == "convolution" else 1, layer["relu"])
                weight.tofile(file)
                bias.tofile(file)
            elif kind == "pool":
                graph.max_pool()
            elif kind == "mean":
                graph.global_average_pool()
            else:
                graph.convert(NC4HW4, NCHW)
                graph.reshape([batch, -1, 1, 1])
                graph.convert(NCHW, NC4HW4)
    graph.convert(NC4HW4, NCHW)
    graph.reshape([batch, -1], "logits")
    graph.write(output)


CONVERTERS = {"litert": litert, "ncnn": ncnn, "mnn": mnn}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("form", choices=["unpack", *CONVERTERS])
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--batch", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.form == "unpack":
        unpack(arguments.input, arguments.output)
    else:
        CONVERTERS[arguments.form](Network(arguments.input), arguments.output, arguments.batch)


if __name__ == "__main__":
    main()
