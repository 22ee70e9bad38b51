r"""How much faster a model with fewer channels is, and how long the surgery takes.

    python benchmarks/channels_speed.py
    python benchmarks/channels_speed.py --shares=0.5 --quantization=int8

First table: latency of the `.tflite` file with all channels, and the share of it that
is left beside the share of MACs, at 96x96 pixels. The files of one net are timed in
turn, `--rounds` times; each ratio is the median of the rounds'.
Second table: seconds of `channel_groups` and `prune_channels(macs=0.5)`, the median of
three. Weights are random: the numbers do not depend on them.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from keras import layers
from tabulate import tabulate

import keras_compress as kc
import tflite_export

FLAGS = flags.FLAGS
flags.DEFINE_list("shares", ["0.5", "0.25"], "Shares of MACs to keep.")
flags.DEFINE_list("nets", ["vgg_like", "ResNet50", "MobileNetV2"], "What is timed.")
flags.DEFINE_list("surgery", ["ResNet50", "DenseNet121"], "Where surgery is timed.")
flags.DEFINE_enum("quantization", "none", ["none", "int8"], "Of the files.")
flags.DEFINE_integer("rounds", 5, "Turns of timing.", lower_bound=1)
SIZE = 96


def vgg_like() -> keras.Model:
    """VGG11's convolutions, each with BatchNormalization, and one Dense layer."""
    image = keras.Input((SIZE, SIZE, 3))
    x = image
    for units, times in ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)):
        for _ in range(times):
            x = layers.Conv2D(units, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.MaxPooling2D()(x)
    x = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(image, x)


def net(name: str) -> keras.Model:
    if name == "vgg_like":
        return vgg_like()
    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(SIZE, SIZE, 3), classes=10)


def latencies(name: str, folder: pathlib.Path) -> list[tuple]:
    """One row per share: share of MACs, of latency, and their ratio."""
    model = net(name)
    models = {1.0: model}
    for share in map(float, FLAGS.shares):
        models[share] = kc.prune_channels(model, macs=share)
    paths, x = {}, np.random.default_rng(0).random((8, SIZE, SIZE, 3), "float32")
    for share, each in models.items():
        paths[share] = folder / f"{name}_{share}.tflite"
        options = {} if FLAGS.quantization == "none" else {"representative_data": x}
        tflite_export.export(
            each, paths[share], quantization=FLAGS.quantization, **options
        )
    macs = {share: tflite_export.inspect(path).macs for share, path in paths.items()}
    times = {share: [] for share in paths}
    for _ in range(FLAGS.rounds):
        for share, path in paths.items():
            times[share].append(tflite_export.benchmark(path).median_ms)
    rows = [(name, f"{macs[1.0]:,}", f"{statistics.median(times[1.0]):.1f} ms", "")]
    for share in list(paths)[1:]:
        pairs = zip(times[share], times[1.0], strict=True)
        latency = statistics.median(after / before for after, before in pairs)
        left = macs[share] / macs[1.0]
        numbers = (f"{left:.1%}", f"{latency:.1%}", f"{latency / left:.2f}")
        rows.append((f"{name}, macs={share}", *numbers))
    return rows


def surgery(name: str) -> tuple:
    model = getattr(keras.applications, name)(weights=None)
    groups = median_seconds(lambda: kc.channel_groups(model))
    return name, groups, median_seconds(lambda: kc.prune_channels(model, macs=0.5))


def median_seconds(function) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        rows = [r for name in FLAGS.nets for r in latencies(name, pathlib.Path(folder))]
    headers = ("file", "MACs", "latency", "latency left / MACs left")
    align = ("left", "right", "right", "right")
    print(tabulate(rows, headers, "github", disable_numparse=True, colalign=align))
    rows = [surgery(name) for name in FLAGS.surgery]
    headers = ("model", "channel_groups, s", "prune_channels, s")
    print()
    print(tabulate(rows, headers, "github", floatfmt=".2f"))


if __name__ == "__main__":
    app.run(main)
