"""What pruning costs: a training step, an update of the masks, and memory.

    python benchmarks/pruning_cost.py
    python benchmarks/pruning_cost.py --steps=20

Steps: a MobileNet-like net (`qat_nets.py`), a small convolutional net and VGG16 for
32x32 images without its head, batches of 128. Plain and pruned steps alternate in one
process, mask updates left out; the table has the median wall time of a step of each,
the median of the ratios of neighbouring steps, and the ratio of the processor times,
which other work on the machine does not move. `with updates` adds the processor time of
one update per 100 steps.

Updates: VGG16's 14.7 million weights to 80 % (2:4: to 50 %); the least of five. Memory:
the bytes of the masks per weight.
"""

import os
import statistics
import time

import numpy as np
from absl import app, flags
from qat_nets import mobile
from tabulate import tabulate

_STEPS = flags.DEFINE_integer("steps", 60, "Training steps to time, each way.", 1)
_VGG16 = flags.DEFINE_bool("vgg16", True, "Measure steps of VGG16 too.")

BATCH = 128
WARM_UP = 3


def convolutions(keras):
    """Three convolutions and a Dense layer, 94,000 parameters."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )


def vgg16(keras):
    """VGG16 for images of 32x32 with ten classes, 14.7 million parameters."""
    body = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    return keras.Sequential([body, keras.layers.Dense(10)])


def compiled(build):
    """The net, ready for training without XLA."""
    import keras

    keras.utils.set_random_seed(0)
    model = build(keras)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    return model


def pruned_kernels(model, pattern=None, max_layer_sparsity=None):
    """The model's kernels under masks."""
    from keras_compress.pruning.criteria import as_criterion
    from keras_compress.pruning.patterns import as_pattern
    from keras_compress.pruning.pruned_kernels import PrunedKernels

    criterion = as_criterion("magnitude")
    return PrunedKernels(
        model, None, as_pattern(pattern), criterion, max_layer_sparsity
    )


def seconds(function) -> tuple[float, float]:
    """Of wall and of processor time."""
    started = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - started[0], time.process_time() - started[1]


def step_row(name: str, build) -> tuple:
    """Plain and pruned steps beside each other."""
    import tensorflow as tf

    plain, pruned = compiled(build), compiled(build)
    masks = pruned_kernels(pruned)
    masks.update(0.8)
    random = np.random.default_rng(0)
    x = random.random((BATCH, *plain.input_shape[1:])).astype("float32")
    x, y = tf.constant(x), tf.constant(random.integers(0, 10, BATCH))
    times = []
    for step in range(WARM_UP + _STEPS.value):
        models = (plain, pruned) if step % 2 else (pruned, plain)
        both = {m: seconds(lambda m=m: m.train_on_batch(x, y)) for m in models}
        if step >= WARM_UP:
            times.append((both[plain], both[pruned]))
    wall, processor = (
        statistics.median(b[clock] / a[clock] for a, b in times) for clock in (0, 1)
    )
    cpu = statistics.median(a[1] for a, _ in times)
    update = min(seconds(lambda: masks.update(0.8))[1] for _ in range(3))
    medians = [
        1000 * statistics.median(pair[way][0] for pair in times) for way in (0, 1)
    ]
    return (
        name,
        *(f"{milliseconds:.1f} ms" for milliseconds in medians),
        *(f"{wall:.3f}", f"{processor:.3f}", f"{processor + update / 100 / cpu:.3f}"),
    )


def update_rows() -> list[tuple]:
    """One update of all masks of VGG16."""
    import keras_compress as kc

    model = compiled(vgg16)
    ways = (
        ("element, per layer", None, None, 0.8),
        ("element, whole model", None, 1.0, 0.8),
        ("2:4", "2:4", None, 0.5),
        ("Block((1, 4))", kc.Block((1, 4)), None, 0.8),
    )
    rows = []
    for name, pattern, cap, sparsity in ways:
        masks = pruned_kernels(model, pattern, cap)
        times = [seconds(lambda m=masks, s=sparsity: m.update(s)) for _ in range(5)]
        masks.release()
        wall, processor = map(min, zip(*times, strict=True))
        rows.append((name, f"{wall:.2f} s", f"{processor:.2f} s"))
    return rows


def mask_bytes() -> float:
    """Bytes of the masks per weight of the small net."""
    model = compiled(convolutions)
    pruned_kernels(model)
    masks = [v.constraint.mask for v in model.weights if v.constraint]
    size = sum(mask.numpy().nbytes for mask in masks)
    return size / sum(np.prod(mask.shape) for mask in masks)


def main(argv: list[str]) -> None:
    """Print the tables."""
    del argv
    nets = {"MobileNet-like": mobile, "small convolutional": convolutions}
    if _VGG16.value:
        nets["VGG16"] = vgg16
    rows = [step_row(*net) for net in nets.items()]
    headers = ("net", "plain step", "pruned step", "ratio")
    headers += ("ratio, processor", "with updates")
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    print()
    headers = ("update of 14.7 million weights", "wall", "processor")
    print(tabulate(update_rows(), headers, tablefmt="github", disable_numparse=True))
    print(f"\nMasks take {mask_bytes():.2f} bytes per weight.")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
