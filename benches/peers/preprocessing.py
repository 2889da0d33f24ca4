"""One picture in memory, encoded, to the input of a network: decode, resize, normalise, in one tool on a CPU.

    pip install pillow numpy    # or opencv-python-headless, torchvision
    python3 benches/peers/preprocessing.py --tool pillow --picture photo.jpg --resize antialias --threads 1
    python3 benches/peers/preprocessing.py --tool pillow --paint FOLDER --from PICTURES

Prints a line of JSON: the pictures of a run (one for each thread, which does it several times), the milliseconds of a
thread for a picture in each run, the peak memory of the process, and some samples of the result, for `cargo xtask peers`
to compare. With --paint, writes the pictures that are measured instead: a JPEG of 12 megapixels, as a camera writes it,
and a PNG of the network's size.
"""

import argparse
import io
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

# `measure preprocessing` warms up as often, and compares one sample of so many.
WARM_UP = 3
STRIDE = 101

# `preprocess(bytes)` gives f32 [3, size, size] of 0 to 1.
Preprocess = Callable[[bytes], np.ndarray]


def pillow(resize: str, size: int) -> tuple[str, Preprocess]:
    import PIL
    from PIL import Image

    if resize == "bilinear":
        raise SystemExit("Pillow's resize always averages over what it shrinks")

    def preprocess(encoded: bytes) -> np.ndarray:
        picture = Image.open(io.BytesIO(encoded))
        if resize == "scaled":
            picture.draft("RGB", (size, size))
        picture = picture.convert("RGB")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        values = np.asarray(picture).transpose(2, 0, 1).astype(np.float32, order="C")
        values *= np.float32(1 / 255)
        return values

    return f"Pillow {PIL.__version__} and numpy", preprocess


def opencv(resize: str, size: int) -> tuple[str, Preprocess]:
    import cv2

    cv2.setNumThreads(1)
    flags = {"scaled": cv2.IMREAD_REDUCED_COLOR_8}.get(resize, cv2.IMREAD_COLOR)
    # It has no bilinear filter that averages; its own for shrinking takes the mean of the area.
    interpolation = cv2.INTER_LINEAR if resize == "bilinear" else cv2.INTER_AREA

    def preprocess(encoded: bytes) -> np.ndarray:
        picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        if picture.shape[:2] != (size, size):
            picture = cv2.resize(picture, (size, size), interpolation=interpolation)
        return cv2.dnn.blobFromImage(picture, 1 / 255, swapRB=True)[0]

    return f"OpenCV {cv2.__version__}", preprocess


def torchvision(resize: str, size: int) -> tuple[str, Preprocess]:
    import torch
    import torchvision
    from torchvision.io import ImageReadMode, decode_image
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(1)
    if resize == "scaled":
        raise SystemExit("torchvision always decodes the whole picture")

    def preprocess(encoded: bytes) -> np.ndarray:
        with torch.inference_mode():
            picture = decode_image(torch.frombuffer(bytearray(encoded), dtype=torch.uint8), ImageReadMode.RGB)
            if picture.shape[1:] != (size, size):
                picture = functional.resize(picture, [size, size], antialias=resize != "bilinear")
            return picture.to(torch.float32).mul_(1 / 255).numpy()

    return f"torchvision {torchvision.__version__.split('+')[0]}", preprocess


TOOLS = {"pillow": pillow, "opencv": opencv, "torchvision": torchvision}


def paint(folder: Path, pictures: Path) -> None:
    """A mosaic of the pictures, in which a pixel of theirs becomes one and a half, at quality 90 and 4:2:0."""
    from PIL import Image

    files = sorted(path for path in pictures.rglob("*") if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    if not files:
        raise SystemExit(f"{pictures} holds no PNG or JPEG pictures; name a folder of photographs")
    order = np.random.default_rng(1).permutation(len(files))
    mosaic, tile, number = Image.new("RGB", (4000, 3000)), 336, 0
    for top in range(0, mosaic.height, tile):
        for left in range(0, mosaic.width, tile):
            with Image.open(files[order[number % len(files)]]) as picture:
                part = picture.convert("RGB").resize((tile, tile), Image.Resampling.BICUBIC)
            mosaic.paste(part, (left, top))
            number += 1
    folder.mkdir(parents=True, exist_ok=True)
    mosaic.save(folder / "12-megapixels.jpg", quality=90, subsampling="4:2:0")
    with Image.open(files[0]) as picture:
        picture.convert("RGB").resize((224, 224)).save(folder / "224.png")


def peak_mib() -> float:
    """The most memory that the process has held, as Linux counts it."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def measure(preprocess: Preprocess, encoded: bytes, threads: int, repeats: int, runs: int) -> list[float]:
    """Milliseconds of a thread for a picture, where all threads work at once, in each run."""

    def work(_: int) -> None:
        for _ in range(repeats):
            preprocess(encoded)

    times = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(WARM_UP + runs):
            start = time.perf_counter()
            list(pool.map(work, range(threads)))
            times.append(1e3 * (time.perf_counter() - start) / repeats)
    return times[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", choices=TOOLS, required=True)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--resize", choices=["bilinear", "antialias", "scaled"], default="antialias")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=1, help="pictures of a thread in a run")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--paint", type=Path, metavar="FOLDER", help="write the pictures that are measured")
    parser.add_argument("--from", type=Path, dest="source", metavar="PICTURES", help="photographs that --paint tiles")
    arguments = parser.parse_args()
    if arguments.paint:
        return paint(arguments.paint, arguments.source)
    # They are read when a tool is imported.
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    tool, preprocess = TOOLS[arguments.tool](arguments.resize, arguments.size)
    encoded = arguments.picture.read_bytes()
    times = measure(preprocess, encoded, arguments.threads, arguments.repeats, arguments.runs)
    samples = preprocess(encoded).reshape(-1)[::STRIDE] * 255
    measured = {"tool": tool, "pictures": arguments.threads, "ms": times, "peak_mib": peak_mib()}
    print(json.dumps(measured | {"samples": samples.tolist()}))


if __name__ == "__main__":
    main()
