r"""Which models of keras.applications export, in which quantisation, and how well.

    python benchmarks/applications_coverage.py
    python benchmarks/applications_coverage.py --models=MobileNetV2 \
        --quantizations=int8 --examples=100

Exports small variants of all families in Keras 3.15, each (model, quantisation) in a
child process of its own, and prints for each what became of it. Weights are random
and seeded, BatchNorm has the statistics of the images, and the heads give logits. A
model that is refused for float ops is exported again with `allow_float_ops=True`, to
count them. Random networks may amplify any rounding: the last column has the largest
difference, as a share of the range, that the Keras model itself shows when nothing but
its images are rounded to 8 bits. Exits with 1 if an export ended otherwise than with a
file or a refusal.
"""

import importlib.metadata
import itertools
import json
import os
import pathlib
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
from absl import app, flags
from tabulate import tabulate

from tflite_export.conversion.settings import QUANTIZATIONS

MODELS = (
    *("VGG16", "VGG19", "ResNet50", "ResNet50V2", "InceptionV3", "InceptionResNetV2"),
    *("Xception", "DenseNet121", "NASNetMobile", "MobileNet", "MobileNetV2"),
    *("MobileNetV3Small", "MobileNetV3Large", "EfficientNetB0", "EfficientNetV2B0"),
    "ConvNeXtTiny",
)
HEADERS = (
    *("model", "quantization", "result", "float ops", "bytes", "MACs", "seconds"),
    *("peak MiB", "argmax equal", "max diff / range", "Keras, rounded images"),
)
RIGHT = ("right",) * 8

FLAGS = flags.FLAGS
flags.DEFINE_list("models", [*MODELS], "Names in keras.applications.")
flags.DEFINE_list("quantizations", ["none", "dynamic", "int8"], "What to export to.")
flags.DEFINE_integer("image_size", 96, "Height and width of images.", lower_bound=32)
flags.DEFINE_integer("examples", 20, "Representative images.", lower_bound=1)
flags.DEFINE_integer("timeout", 900, "Seconds for one export.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Exports to run at the same time.", lower_bound=1)
flags.DEFINE_string("output_json", None, "Keeps the results in this file as well.")
flags.DEFINE_string("child_json", None, "Set by the script for its child processes.")


def natural_images(count: int, size: int) -> np.ndarray:
    """Seeded images in [0, 255] whose spectrum falls with 1 / frequency, as photos'."""
    random = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(size), np.fft.rfftfreq(size)
    frequency = np.hypot(rows[:, None], columns[None]) + 1 / size
    noise = random.normal(size=(count, size, size, 3))
    # Channels of photos have most of their content in common.
    noise = noise + 2 * random.normal(size=(count, size, size, 1))
    spectrum = np.fft.rfft2(noise, axes=(1, 2)) / frequency[:, :, None]
    images = np.fft.irfft2(spectrum, s=(size, size), axes=(1, 2))
    low = images.min(axis=(1, 2, 3), keepdims=True)
    high = images.max(axis=(1, 2, 3), keepdims=True)
    return (255 * (images - low) / (high - low)).astype("float32")


def build(name: str, images: np.ndarray):
    """The seeded model with BatchNorm statistics, and the images as it takes them."""
    import keras

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(
        weights=None, input_shape=images.shape[1:], classifier_activation=None
    )
    kinds = [type(layer).__name__ for layer in model.layers]
    if not {"Rescaling", "Normalization"} & set(kinds):
        images = images / 127.5 - 1
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":
            # It starts at 1e-6, which leaves nothing of a branch to be compared.
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images[:32], training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum
    return model, images


def run_one(name: str, quantization: str, path: str) -> dict:
    """Export one model in this process; what came of it, as a dict for JSON."""
    import tflite_export
    from tflite_export.conversion import isolation

    model, images = build(name, natural_images(FLAGS.examples, FLAGS.image_size))
    options = {"quantization": quantization, "representative_data": images}
    row = {"result": "ok", "reason": ""}
    warnings.simplefilter("ignore")
    run_child = isolation._run_child
    with mock.patch.object(isolation, "_run_child", wraps=run_child) as converter:
        start = time.perf_counter()
        try:
            result = tflite_export.export(model, path, **options)
        except ValueError as error:
            row |= {"result": "refused", "reason": " ".join(str(error).split())}
            if "allow_float_ops" not in row["reason"]:
                return row
            start = time.perf_counter()
            result = tflite_export.export(model, path, **options, allow_float_ops=True)
        row["seconds"] = time.perf_counter() - start
    if converter.call_args:
        ops = converter.call_args.args[1].ops
        row["unusual_ops"] = sorted(ops - isolation._HARMLESS)
    row["dead_layers"] = list(result.dead_layers)
    row["peak_bytes"] = peak_bytes()
    profile, agreement = tflite_export.inspect(path), result.agreement
    outputs = model.predict(images, verbose=0)
    step = np.ptp(images) / 255
    rounded = model.predict(np.round(images / step) * step, verbose=0)
    return row | {
        "bytes": result.bytes,
        "macs": profile.macs,
        "ops": sum(result.ops.values()),
        "float_ops": dict(result.float_ops),
        "argmax": agreement.argmax,
        "relative_difference": float(agreement.max_abs_diff / np.ptp(outputs)),
        "rounded_difference": float(np.abs(rounded - outputs).max() / np.ptp(outputs)),
    }


def peak_bytes() -> int:
    """The most memory that this process, or one that it started, held at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return unit * max(resource.getrusage(each).ru_maxrss for each in who)


def run_in_child(name: str, quantization: str, folder: str) -> dict:
    """`run_one` in a process of its own, which may crash or hang."""
    results, said = pathlib.Path(folder, "row.json"), pathlib.Path(folder, "stderr")
    results.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-P", __file__, f"--child_json={results}"),
        *(f"--models={name}", f"--quantizations={quantization}"),
        *(f"--image_size={FLAGS.image_size}", f"--examples={FLAGS.examples}"),
    ]
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    with open(said, "wb") as stream:
        child = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            env=environment,
            start_new_session=True,
        )
    try:
        code = child.wait(FLAGS.timeout)
    except subprocess.TimeoutExpired:
        reason = f"did not finish within {FLAGS.timeout} seconds"
    else:
        if code == 0:
            return json.loads(results.read_text())
        lines = said.read_text(errors="replace").strip().splitlines() or ["no message"]
        reason = f"ended with exit code {code}: {lines[-1]}"
    finally:
        if child.poll() is None:
            # The child leads a group with what it started itself.
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return {"result": "failed", "reason": reason}


def full_row(name: str, quantization: str) -> dict:
    """What `run_in_child` gives, with what it was for; tells of it on stderr."""
    with tempfile.TemporaryDirectory() as folder:
        row = run_in_child(name, quantization, folder)
    row = {"model": name, "quantization": quantization, "unusual_ops": []} | row
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def in_float(row: dict) -> Counter:
    """The float ops but for those that convert at the edges of a float island."""
    counts = Counter(row.get("float_ops", {}))
    return Counter({k: n for k, n in counts.items() if "QUANTIZE" not in k}) or counts


def table_row(row: dict) -> tuple:
    result = row["result"]
    if result == "refused" and "bytes" in row:
        found = in_float(row).most_common()
        result = f"refused: {', '.join(f'{n} {name}' for name, n in found)} in float"
    elif row.get("dead_layers"):
        result = f"ok, {len(row['dead_layers'])} dead layers"
    head = (row["model"], row["quantization"], result)
    if "bytes" not in row:
        return (*head, *("",) * len(RIGHT))
    floating = sum(row["float_ops"].values())
    return (
        *head,
        f"{floating} of {row['ops']}" if floating else "0",
        f"{row['bytes']:,}",
        f"{row['macs']:,}",
        f"{row['seconds']:.0f}",
        f"{row['peak_bytes'] / 2**20:,.0f}",
        f"{row['argmax']:.0%}",
        f"{row['relative_difference']:.2%}",
        f"{row['rounded_difference']:.2%}",
    )


def report(rows: list[dict]) -> str:
    align = ("left",) * 3 + RIGHT
    lines = [
        tabulate(
            map(table_row, rows),
            HEADERS,
            tablefmt="github",
            disable_numparse=True,
            colalign=align,
        ),
        "",
    ]
    for row in rows:
        if row["reason"]:
            reason = textwrap.shorten(row["reason"], 320, placeholder=" ...")
            lines.append(f"{row['model']}, {row['quantization']}: {reason}")
    unusual = {f"{op} ({row['model']})" for row in rows for op in row["unusual_ops"]}
    names = ", ".join(sorted(unusual)) or "none"
    lines.append(f"Ops for which the conversion ran in a child process: {names}")
    for quantization in FLAGS.quantizations:
        found = [row["result"] for row in rows if row["quantization"] == quantization]
        lines.append(f"{quantization}: {found.count('ok')} of {len(found)}")
    return "\n".join(lines)


def versions() -> str:
    names = ("tensorflow", "keras", "ai-edge-litert")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    found.append(f"Python {platform.python_version()}, {os.cpu_count()} CPUs")
    sizes = f"{FLAGS.image_size}x{FLAGS.image_size}, {FLAGS.examples} examples"
    return f"{', '.join(found)}; {sizes}"


def check_flags() -> None:
    known = {"quantizations": QUANTIZATIONS, "models": MODELS}
    for name, values in known.items():
        unknown = sorted(set(FLAGS[name].value) - set(values))
        if unknown or not FLAGS[name].value:
            raise app.UsageError(
                f"--{name} takes {', '.join(values)}. Received: {', '.join(unknown)}"
            )


def main(argv):
    del argv
    check_flags()
    if FLAGS.child_json:
        results = pathlib.Path(FLAGS.child_json)
        path = str(results.with_name("model.tflite"))
        row = run_one(FLAGS.models[0], FLAGS.quantizations[0], path)
        results.write_text(json.dumps(row))
        return 0
    pairs = list(itertools.product(FLAGS.models, FLAGS.quantizations))
    with ThreadPoolExecutor(FLAGS.jobs) as pool:
        rows = list(pool.map(full_row, *zip(*pairs, strict=True)))
    if FLAGS.output_json:
        pathlib.Path(FLAGS.output_json).write_text(json.dumps(rows, indent=1))
    print(f"{versions()}\n\n{report(rows)}")
    return 1 if any(row["result"] == "failed" for row in rows) else 0


if __name__ == "__main__":
    app.run(main)
