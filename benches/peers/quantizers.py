"""One quantizer of an ONNX file, ours or ONNX Runtime's own, with its time and its peak memory.

    pip install onnxruntime onnx sympy pillow
    python3 benches/peers/quantizers.py static --method entropy --model fp32.onnx --output q.onnx \\
        --pictures coffee --list training.txt
    python3 benches/peers/quantizers.py dynamic --model fp32.onnx --output q.onnx
    python3 benches/peers/quantizers.py command target/release/exporter RUN -o q.onnx --quantize

Static quantization is as ONNX Runtime's documentation advises for processors without VNNI: `quant_pre_process` first,
weights per channel in 7 bits. The pictures of the list, a path below the folder on each line, are prepared as the file's
own metadata says. Prints a line of JSON: seconds and peak memory, for `cargo xtask peers quantization` to put into a table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def prepared(path: Path, preprocess: dict) -> np.ndarray:
    """A picture as the network takes it, f32 [1, 3, height, width]: bilinear between the nearest pixels, half-pixel
    centres, as `tf.image.resize`."""
    from PIL import Image

    expected = {"fit": "stretch", "filter": "bilinear", "antialias": False, "channel_order": "rgb"}
    other = {key: preprocess.get(key) for key, value in expected.items() if preprocess.get(key) != value}
    if other:
        sys.exit(f"the pictures of this file are prepared in a way that is not written here: {other}")
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float32)
    for axis, size in ((0, preprocess["height"]), (1, preprocess["width"])):
        length = pixels.shape[axis]
        place = np.maximum((np.arange(size) + 0.5) * (length / size) - 0.5, 0)
        low = np.minimum(place.astype(int), length - 1)
        high = np.minimum(low + 1, length - 1)
        share = (place - low).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        pixels = np.take(pixels, low, axis) * (1 - share) + np.take(pixels, high, axis) * share
    mean, std = (np.asarray(preprocess[key], dtype=np.float32) for key in ("mean", "std"))
    return ((pixels * np.float32(preprocess["scale"]) - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


class Reader:
    """What `quantize_static` asks for pictures."""

    def __init__(self, name: str, pictures: list[Path], preprocess: dict):
        self.batches: Iterator[dict] = ({name: prepared(path, preprocess)} for path in pictures)

    def get_next(self) -> dict | None:
        return next(self.batches, None)


def in_turn(lines: list[str], count: int) -> list[str]:
    """As many of each class as can be, one of each in turn, as the exporter takes them; the class is the folder."""
    classes: dict[str, list[str]] = {}
    for line in lines:
        classes.setdefault(line.split("/")[0], []).append(line)
    ordered = [classes[name] for name in sorted(classes)]
    rounds = range(max(map(len, ordered), default=0))
    return [files[turn] for turn in rounds for files in ordered if turn < len(files)][:count]


def static(arguments: argparse.Namespace) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = onnx.load(arguments.model)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    files = in_turn(arguments.list.read_text().splitlines(), arguments.count)
    pictures = [arguments.pictures / line for line in files]
    reader = Reader(model.graph.input[0].name, pictures, json.loads(metadata["demitasse.preprocess"]))
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(str(arguments.model), str(ready))
        quantize_static(
            str(ready),
            str(arguments.output),
            reader,
            quant_format=QuantFormat.QOperator if arguments.qoperator else QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method={
                "minmax": CalibrationMethod.MinMax,
                "entropy": CalibrationMethod.Entropy,
                "percentile": CalibrationMethod.Percentile,
            }[arguments.method],
        )
    keep_metadata(model, arguments.output)


def dynamic(arguments: argparse.Namespace) -> None:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    operators = ["MatMul", "Gemm"] if arguments.dense_only else None
    quantize_dynamic(
        str(arguments.model),
        str(arguments.output),
        op_types_to_quantize=operators,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    keep_metadata(onnx.load(arguments.model), arguments.output)


def keep_metadata(model: "onnx.ModelProto", output: Path) -> None:
    """Labels and preprocessing, without which no file is served."""
    import onnx

    quantized = onnx.load(output)
    del quantized.metadata_props[:]
    quantized.metadata_props.extend(model.metadata_props)
    onnx.save(quantized, output)


def command(arguments: argparse.Namespace) -> None:
    finished = subprocess.run(arguments.command, stdout=subprocess.DEVNULL)
    if finished.returncode:
        sys.exit(finished.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    works = parser.add_subparsers(required=True)
    for name, work in (("static", static), ("dynamic", dynamic)):
        of = works.add_parser(name)
        of.set_defaults(work=work)
        of.add_argument("--model", type=Path, required=True)
        of.add_argument("--output", type=Path, required=True)
        if name == "dynamic":
            of.add_argument("--dense-only", action="store_true")
            continue
        of.add_argument("--method", choices=["minmax", "entropy", "percentile"], default="minmax")
        of.add_argument("--qoperator", action="store_true")
        of.add_argument("--pictures", type=Path, required=True)
        of.add_argument("--list", type=Path, required=True)
        of.add_argument("--count", type=int, default=128)
    of = works.add_parser("command")
    of.set_defaults(work=command)
    of.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    start = time.perf_counter()
    arguments.work(arguments)
    seconds = time.perf_counter() - start
    who = resource.RUSAGE_CHILDREN if arguments.work is command else resource.RUSAGE_SELF
    print(json.dumps({"seconds": seconds, "peak_mib": resource.getrusage(who).ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
