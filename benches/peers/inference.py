"""One network in one tool on a CPU, from a batch of prepared pictures to logits.

    pip install onnxruntime    # or openvino, opencv-python-headless, torch, tensorflow-cpu, ai-edge-litert, ncnn, MNN
    python3 benches/peers/inference.py --tool onnxruntime --model vgg16.onnx --batch 1 --threads 2 --runs 12

onnxruntime, openvino and opencv read the ONNX file; torch and tensorflow the folder, litert, ncnn and mnn the file that
convert.py makes of it. Prints a line of JSON: the pictures of a run, the milliseconds of each after the warm-up, those
of loading and of the first run, the peak memory of the process, and the logits, for `cargo xtask peers` to compare.
"""

import argparse
import importlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# `measure inference` warms up as often.
WARM_UP = 3

Run = Callable[[], np.ndarray]


def onnxruntime(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return f"ONNX Runtime {onnxruntime.__version__}", lambda: session.run(None, {name: pictures})[0]


def openvino(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import openvino

    core = openvino.Core()
    read = core.read_model(model)
    read.reshape(pictures.shape)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(read, "CPU", settings).create_infer_request()
    version = openvino.__version__.split("-")[0]
    return f"OpenVINO {version}", lambda: request.infer([pictures], share_inputs=True)[0]


def opencv(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import cv2

    cv2.setNumThreads(threads)
    # The engine that it had before version 5.
    network = cv2.dnn.readNetFromONNX(str(model), cv2.dnn.ENGINE_CLASSIC)

    def run() -> np.ndarray:
        network.setInput(pictures)
        return network.forward()

    return f"OpenCV {cv2.__version__}", run


def torch(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import torch
    from convert import Network, torch_network

    torch.set_num_threads(threads)
    network = torch_network(Network(model)).to(memory_format=torch.channels_last)
    batch = torch.from_numpy(pictures).to(memory_format=torch.channels_last)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return network(batch).numpy()

    return f"PyTorch {torch.__version__.split('+')[0]}", run


def tensorflow(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import tensorflow
    from convert import Network, keras_network

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(1)
    network = keras_network(Network(model), len(pictures))
    function = tensorflow.function(lambda batch: network(batch, training=False))
    batch = tensorflow.constant(channels_last(pictures))
    return f"TensorFlow {tensorflow.__version__}", lambda: function(batch).numpy()


def litert(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model), num_threads=threads)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    batch = channels_last(pictures)

    def run() -> np.ndarray:
        interpreter.set_tensor(source, batch)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return f"LiteRT {version('ai-edge-litert')}", run


def ncnn(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import ncnn
    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = False
    network.load_param(str(model))
    network.load_model(str(model.with_suffix(".bin")))

    def one(picture: np.ndarray) -> np.ndarray:
        extractor = network.create_extractor()
        extractor.input("input", ncnn.Mat(picture))
        return np.array(extractor.extract("logits")[1])

    # ncnn has no batches.
    return f"ncnn {ncnn.__version__}", lambda: np.stack([one(picture) for picture in pictures])


def mnn(model: Path, pictures: np.ndarray, threads: int) -> tuple[str, Run]:
    import MNN
    from MNN import expr, nn

    settings = {"backend": "CPU", "numThread": threads, "precision": "high"}
    manager = nn.create_runtime_manager((settings,))
    manager.set_external(f"{model}.weight")
    network = nn.load_module_from_file(str(model), ["input"], ["logits"], runtime_manager=manager)

    def run() -> np.ndarray:
        batch = expr.placeholder(list(pictures.shape), expr.NCHW)
        batch.write(pictures)
        return network.forward([batch])[0].read().copy()

    return f"MNN {MNN.version()}", run


# With the module whose import is no part of loading a model.
TOOLS = {
    "onnxruntime": ("onnxruntime", onnxruntime),
    "openvino": ("openvino", openvino),
    "opencv": ("cv2", opencv),
    "torch": ("torch", torch),
    "tensorflow": ("tensorflow", tensorflow),
    "litert": ("ai_edge_litert.interpreter", litert),
    "ncnn": ("ncnn", ncnn),
    "mnn": ("MNN", mnn),
}


def noise(batch: int, shape: list[int]) -> np.ndarray:
    """The pictures that `measure inference` makes: Numerical Recipes' generator from 1, its upper bytes over 255."""
    count = batch * int(np.prod(shape))
    # After n steps the state is a^n + c·(1 + a + … + a^(n-1)), modulo 2^32.
    powers = np.cumprod(np.full(count, 1_664_525, np.uint32), dtype=np.uint32)
    sums = np.cumsum(np.concatenate([np.ones(1, np.uint32), powers[:-1]]), dtype=np.uint32)
    states = powers + np.uint32(1_013_904_223) * sums
    return ((states >> np.uint32(24)).astype(np.float32) / np.float32(255)).reshape(batch, *shape)


def channels_last(pictures: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))


def peak_mib() -> float:
    """The most memory that the process has held, as Linux counts it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def milliseconds(start: float) -> float:
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", choices=TOOLS, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--shape", type=int, nargs=3, default=[3, 224, 224], help="channels, rows, columns")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=12)
    arguments = parser.parse_args()
    # Some tools write notes on standard output, which is for the line alone.
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # They are read when a tool is imported.
    os.environ |= {"OMP_NUM_THREADS": str(arguments.threads), "TF_CPP_MIN_LOG_LEVEL": "2"}
    pictures = noise(arguments.batch, arguments.shape)
    module, open_model = TOOLS[arguments.tool]
    importlib.import_module(module)
    start = time.perf_counter()
    tool, run = open_model(arguments.model, pictures, arguments.threads)
    load_ms = milliseconds(start)
    start = time.perf_counter()
    logits = run()
    first_ms = milliseconds(start)
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(arguments.runs):
        start = time.perf_counter()
        logits = run()
        times.append(milliseconds(start))
    measured = {"tool": tool, "pictures": arguments.batch, "ms": times, "peak_mib": peak_mib()}
    measured |= {"load_ms": load_ms, "first_ms": first_ms, "logits": logits.reshape(arguments.batch, -1).tolist()}
    print(json.dumps(measured), file=line)


if __name__ == "__main__":
    main()
