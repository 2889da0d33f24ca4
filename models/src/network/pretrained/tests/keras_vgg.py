"""Writes vgg16.keras.h5 and vgg19.keras.h5, their weights alone in Keras's three layouts, and keras.json: their logits.

    pip install tensorflow-cpu && python keras_vgg.py

The networks are keras.applications' with few channels, saved by Keras itself, their layers under its names.
"""

import json
import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import h5py
import keras
import numpy
from keras import layers

DEPTHS = {"vgg16": [2, 2, 3, 3, 3], "vgg19": [2, 2, 4, 4, 4]}
WIDTHS = [2, 3, 4, 5, 5]
CLASSES = 4


def network(name):
    """What keras/src/applications/vgg16.py and vgg19.py build, with few channels."""
    x = inputs = keras.Input((224, 224, 3))
    for block, (depth, width) in enumerate(zip(DEPTHS[name], WIDTHS), 1):
        for number in range(1, depth + 1):
            x = layers.Conv2D(width, 3, activation="relu", padding="same", name=f"block{block}_conv{number}")(x)
        x = layers.MaxPooling2D(2, 2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(8, activation="relu", name="fc1")(x)
    x = layers.Dense(6, activation="relu", name="fc2")(x)
    x = layers.Dense(CLASSES, name="predictions")(x)
    return keras.Model(inputs, x, name=name)


def fill(model, seed):
    draw = numpy.random.RandomState(seed)
    weights = []
    for array in model.get_weights():
        if array.ndim == 1:
            weights.append(draw.uniform(0, 0.3, array.shape))
        else:
            deviation = (2 / numpy.prod(array.shape[:-1])) ** 0.5
            weights.append(draw.normal(0, deviation, array.shape))
    model.set_weights([array.astype("float32") for array in weights])


def old_weights(model, path):
    """The layout of keras.applications' files of 2016: a group for each layer, and both of its arrays in it."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}_{part}_1:0" for part in ("W", "b")][: len(layer.get_weights())]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, layer.get_weights()):
                group.create_dataset(name, data=array)


pictures = numpy.sin(0.7 * numpy.arange(2 * 3 * 224 * 224) + 0.3).astype("float32").reshape(2, 3, 224, 224)
logits = {}
for seed, name in enumerate(DEPTHS):
    model = network(name)
    fill(model, seed)
    model.save(f"{name}.keras.h5")
    if name == "vgg16":
        old_weights(model, "vgg16.keras-1.h5")
        model.save_weights("vgg16.weights.h5")
    answers = model.predict(pictures.transpose(0, 2, 3, 1), verbose=0)
    logits[name] = [float(f"{value:.9g}") for value in answers.flatten()]
with open("keras.json", "w") as file:
    json.dump({"keras": keras.__version__, "logits": logits}, file)
    file.write("\n")
