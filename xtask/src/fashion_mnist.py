"""Writes Fashion-MNIST, as its four files have it, into folders of pictures: FOLDER/train/CLASS/00000.png and FOLDER/test/…

The format of the files: http://yann.lecun.com/exdb/mnist, big-endian counts and then bytes.
"""

import gzip
import struct
import sys
import zlib
from pathlib import Path

CLASSES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
SIDES = [("train", "train", 60_000), ("test", "t10k", 10_000)]
SIDE = 28


def read(path, magic, header, size, count):
    content = gzip.decompress(path.read_bytes())
    found = struct.unpack_from(f">{header // 4}I", content)
    if found[:2] != (magic, count) or len(content) != header + count * size:
        sys.exit(f"{path}: expected {count} items of {size} bytes, found {len(content)} bytes that begin with {found}")
    return content[header:]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels):
    rows = b"".join(b"\0" + pixels[row : row + SIDE] for row in range(0, len(pixels), SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def main():
    source, folder = map(Path, sys.argv[1:])
    for side, prefix, count in SIDES:
        pictures = read(source / f"{prefix}-images-idx3-ubyte.gz", 2051, 16, SIDE * SIDE, count)
        labels = read(source / f"{prefix}-labels-idx1-ubyte.gz", 2049, 8, 1, count)
        for name in CLASSES:
            (folder / side / name).mkdir(parents=True)
        for index, label in enumerate(labels):
            pixels = pictures[index * SIDE * SIDE : (index + 1) * SIDE * SIDE]
            (folder / side / CLASSES[label] / f"{index:05}.png").write_bytes(png(pixels))


main()
