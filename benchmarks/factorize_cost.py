r"""What factorisation costs, and what it saves.

    python benchmarks/factorize_cost.py
    python benchmarks/factorize_cost.py --nets=ResNet50 --share=0.7

For each net of keras.applications, with its head: seconds of
`factorize(params=share)`, parameters and MACs before and after, and the latency of the
float `.tflite` files, timed in turn, `--rounds` times; the ratio is the median of the
rounds'. Weights are random: accuracy is not measured, and the ranks of trained kernels
are others.
"""

import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc
import tflite_export
from keras_compress.factorization.factorize import factorize

FLAGS = flags.FLAGS
flags.DEFINE_list("nets", ["VGG16", "ResNet50"], "Nets of keras.applications.")
flags.DEFINE_float("share", 0.5, "Share of parameters to keep.", 0, 1)
flags.DEFINE_integer("rounds", 5, "Turns of timing.", lower_bound=1)


def row(name: str, folder: pathlib.Path) -> tuple:
    """The net's seconds, parameters, MACs and latencies."""
    model = getattr(keras.applications, name)(weights=None)
    start = time.perf_counter()
    smaller = factorize(model, params=FLAGS.share)
    seconds = time.perf_counter() - start
    before, after = kc.profile(model), kc.profile(smaller)
    paths = [folder / f"{name}_{part}.tflite" for part in ("before", "after")]
    for each, path in zip((model, smaller), paths, strict=True):
        tflite_export.export(each, path, quantization="none")
    rounds = [
        [tflite_export.benchmark(path).median_ms for path in paths]
        for _ in range(FLAGS.rounds)
    ]
    whole = statistics.median(first for first, _ in rounds)
    latency = statistics.median(second / first for first, second in rounds)
    return (
        *(name, f"{seconds:.1f}", f"{before.params:,}"),
        *(f"{after.params / before.params:.1%}", f"{before.macs:,}"),
        *(f"{after.macs / before.macs:.1%}", f"{whole:.1f} ms", f"{latency:.1%}"),
    )


def main(argv):
    del argv
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, pathlib.Path(folder)) for name in FLAGS.nets]
    headers = ["model", "factorize, s"]
    for name in ("parameters", "MACs", "latency"):
        headers += [name, f"{name} left"]
    align = ("left", *("right",) * 7)
    print(tabulate(rows, headers, "github", disable_numparse=True, colalign=align))


if __name__ == "__main__":
    app.run(main)
