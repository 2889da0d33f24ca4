"""A picture's answer from a process that starts for it: Pillow, numpy and ONNX Runtime.

    pip install onnxruntime pillow
    python3 benches/peers/first_answer.py slim.onnx picture.png --threads 1

Does what `runtime predict --format json` does for a file of this project, and prints the same.
"""

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = arguments.threads, 1
    session = onnxruntime.InferenceSession(arguments.model, options, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["names"])
    input = session.get_inputs()[0]
    height, width = input.shape[2:]
    picture = Image.open(arguments.picture).convert("RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    batch = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1)[None] / np.float32(255)
    logits = session.run(None, {input.name: batch})[0][0]
    powers = np.exp(logits - logits.max())
    probabilities = powers / powers.sum()
    order = np.argsort(-probabilities)[:3]
    labels = names if isinstance(names, list) else [names[str(index)] for index in range(len(names))]
    predictions = [{"label": labels[index], "probability": float(probabilities[index])} for index in order]
    print(json.dumps([{"file": arguments.picture, "predictions": predictions}]))


if __name__ == "__main__":
    main()
