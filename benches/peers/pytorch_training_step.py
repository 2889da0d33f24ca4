"""One step of training VGG-16 (4 classes) in PyTorch on a CPU: forward, backward, Adam.

    pip install torch --index-url https://download.pytorch.org/whl/cpu   # or: pip install torch
    python3 benches/peers/pytorch_training_step.py --size 224 --batch 8 --threads 2

Prints the median and the minimum of the steps' times, and the peak memory of the process.
"""

import argparse
import resource
import statistics
import time

import torch
from torch import nn

WIDTHS = [64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool"]


def vgg16(size: int, width: float, gap: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for entry in WIDTHS:
        if entry == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            out = int(entry * width)
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU(inplace=True)]
            channels = out
    if gap:
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)]
    else:
        hidden = int(4096 * width)
        layers += [nn.Flatten(), nn.Linear(channels * (size // 32) ** 2, hidden), nn.ReLU(inplace=True)]
        layers += [nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 4)]
    return nn.Sequential(*layers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--gap", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    network = vgg16(arguments.size, arguments.width, arguments.gap)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-5, eps=1e-7)
    pictures = torch.rand(arguments.batch, 3, arguments.size, arguments.size)
    labels = torch.arange(arguments.batch) % 4
    times = []
    for step in range(arguments.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(network(pictures), labels).backward()
        optimizer.step()
        if step > 0:
            times.append(1e3 * (time.perf_counter() - start))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"torch {torch.__version__}, {arguments.size}x{arguments.size}, batch {arguments.batch}: "
        f"median {statistics.median(times):.0f} ms, minimum {min(times):.0f} ms, peak {peak:.0f} MiB"
    )


if __name__ == "__main__":
    main()
