"""Steps of training VGG-16 (4 classes) in PyTorch on a CPU: forward, backward, Adam.

    pip install torch
    python3 benches/peers/training_step.py --size 224 --batch 8 --threads 2 --steps 4

Prints a line of JSON: the pictures of a step, the milliseconds of each after the first, and the process's peak memory.
"""

import argparse
import json
import resource
import time

import torch
from torch import nn

WIDTHS = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def vgg16(size: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in WIDTHS:
        if width == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    layers += [nn.Flatten(), nn.Linear(channels * (size // 32) ** 2, 4096), nn.ReLU(inplace=True)]
    layers += [nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4)]
    return nn.Sequential(*layers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    network = vgg16(arguments.size)
    pictures = torch.rand(arguments.batch, 3, arguments.size, arguments.size)
    if arguments.channels_last:
        network = network.to(memory_format=torch.channels_last)
        pictures = pictures.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, eps=1e-7)
    labels = torch.arange(arguments.batch) % 4
    times = []
    for _ in range(arguments.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(pictures), labels).backward()
        optimizer.step()
        times.append(1e3 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    layout = ", channels last" if arguments.channels_last else ""
    tool = f"PyTorch {torch.__version__.split('+')[0]}{layout}"
    print(json.dumps({"tool": tool, "pictures": arguments.batch, "ms": times[1:], "peak_mib": peak}))


if __name__ == "__main__":
    main()
