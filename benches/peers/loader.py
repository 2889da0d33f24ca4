"""Epochs of a folder of labelled pictures through PyTorch's DataLoader or tf.data, without a network behind them.

    pip install torch torchvision tensorflow-cpu
    python3 benches/peers/loader.py PICTURES --tool tf.data --size 224 --threads 2 --epochs 3 [--keep]

Prints a line of JSON: the pictures of an epoch, the milliseconds of each after the first, and the peak memory of the
process (without that of DataLoader's workers).
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

BATCH = 32


def torch_epochs(pictures: str, size: int, threads: int, keep: bool) -> tuple[str, Callable[[], int]]:
    import torch
    from torchvision import datasets, transforms

    if keep:
        raise SystemExit("DataLoader keeps no pictures in memory")
    torch.set_num_threads(threads)
    steps = [transforms.Resize((size, size), antialias=False), transforms.ToTensor()]
    folder = datasets.ImageFolder(pictures, transforms.Compose(steps))
    loader = torch.utils.data.DataLoader(
        folder, BATCH, shuffle=True, num_workers=threads, persistent_workers=True, prefetch_factor=2
    )
    return f"PyTorch {torch.__version__.split('+')[0]} DataLoader", lambda: sum(len(labels) for _, labels in loader)


def tensorflow_epochs(pictures: str, size: int, threads: int, keep: bool) -> tuple[str, Callable[[], int]]:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(threads)
    tensorflow.config.threading.set_inter_op_parallelism_threads(threads)
    data = tensorflow.keras.utils.image_dataset_from_directory(
        pictures, image_size=(size, size), batch_size=BATCH, verbose=False
    )
    if keep:
        data = data.cache()
    data = data.map(lambda x, y: (x / 255.0, y), num_parallel_calls=tensorflow.data.AUTOTUNE)
    data = data.prefetch(tensorflow.data.AUTOTUNE)
    return f"tf.data {tensorflow.__version__}", lambda: sum(int(labels.shape[0]) for _, labels in data)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures")
    parser.add_argument("--tool", choices=["torch", "tf.data"], required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the pictures in memory after the first epoch")
    arguments = parser.parse_args()
    start_epochs = torch_epochs if arguments.tool == "torch" else tensorflow_epochs
    tool, epoch = start_epochs(arguments.pictures, arguments.size, arguments.threads, arguments.keep)
    times = []
    for _ in range(arguments.epochs + 1):
        start = time.perf_counter()
        count = epoch()
        times.append(1e3 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tool": tool, "pictures": count, "ms": times[1:], "peak_mib": peak}))


if __name__ == "__main__":
    main()
