r"""Which models lose channels, and are then as good a model as before.

    python benchmarks/channels_coverage.py
    python benchmarks/channels_coverage.py --cases=MobileNetV2,head:ResNet50

Each case, a model of keras.applications, a small net of qat_coverage_nets.py or, with
"head:", Sequential([base, GlobalAveragePooling2D, Dense]), goes in a process of its own
through

- exactness: half the channels of every group are made worthless, their weights zero,
  and removed; "exact" is the largest difference of the outputs, as a share of the
  largest output;
- `prune_channels(model, macs=0.5)`: the share of MACs left and the seconds;
- one step of `fit`;
- a `.keras` file, loaded in a process that does not import this package;
- a float and an int8 `.tflite` file: MACs of the float file as a share of the report's.

Weights are random. Exits with 1 if a case did not come through, or missed its share of
MACs by more than 1 %.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
from absl import app, flags
from applications_coverage import MODELS, peak_bytes
from qat_coverage_nets import CLASSES, NETS, build, examples_for, settle
from tabulate import tabulate

HEADERS = (
    *("model", "exact", "groups", "frozen", "MACs left", "parameters left", "seconds"),
    *("fit", "save, load", "float .tflite", "MACs of file", "int8 .tflite", "peak MiB"),
)
LOAD = """
import sys
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
assert not any(name.startswith("keras_compress") for name in sys.modules)
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""

FLAGS = flags.FLAGS  # --image_size and --timeout are those of applications_coverage.
flags.DEFINE_list(
    "cases",
    [*MODELS, "head:VGG16", "head:MobileNetV2"],
    'Names in keras.applications, or nets; "head:" before a name for a new head.',
)
flags.DEFINE_string("child", None, "The folder in which to run the one case.")


def model_for(keras, case: str):
    """The seeded model, and examples for it."""
    name = case.removeprefix("head:")
    model = build(keras, name, FLAGS.image_size)
    if case != name:
        shape = (FLAGS.image_size, FLAGS.image_size, 3)
        base = getattr(keras.applications, name)(
            include_top=False, weights=None, input_shape=shape
        )
        head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(CLASSES)]
        model = keras.Sequential([keras.Input(shape), base, *head])
    x = examples_for(model, 16)
    x = x[0] if len(x) == 1 else x
    settle(model, x)
    return model, x


def worthless(group) -> np.ndarray:
    """The half of a group's channels that is made worthless."""
    random = np.random.default_rng(int(group.channels[0]))
    return random.permutation(group.size) < group.size // 2


def difference_without(keras, model, x) -> float:
    """How far the outputs move when worthless channels are removed."""
    import keras_compress as kc

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for group in kc.channel_groups(copy):
        for axis in () if group.frozen else group.axes:
            values = np.moveaxis(np.array(axis.variable), axis.axis, 0)
            values[axis.index[worthless(group)].reshape(-1)] = 0
            axis.variable.assign(np.moveaxis(values, 0, axis.axis))
    smaller = kc.prune_channels(
        copy,
        ratio=0.5,
        importance=lambda group, model: 1.0 - worthless(group),
        round_to=1,
    )
    before, after = copy.predict(x, verbose=0), smaller.predict(x, verbose=0)
    return float(np.abs(before - after).max() / np.abs(before).max())


def run_case(case: str, folder: pathlib.Path) -> dict:
    """All stages of a case; "stage" is the one that failed."""
    import keras

    import keras_compress as kc

    model, x = model_for(keras, case)
    row = {"stage": "exact"}
    try:
        # Rounding alone is about 1e-6; models with LayerNormalization are never exact,
        # since it looks at all channels.
        row["exact"] = difference_without(keras, model, x)
        row["stage"] = "prune"
        start = time.perf_counter()
        smaller = kc.prune_channels(model, macs=0.5)
        row["seconds"] = time.perf_counter() - start
        report = smaller.channel_report
        row |= {
            "groups": len(report.groups),
            "frozen": sum(bool(group.reason) for group in report.groups),
            "macs": report.macs[1] / report.macs[0],
            "params": smaller.count_params() / model.count_params(),
        }
        row["stage"] = "fit"
        fit_one_step(keras, smaller, x)
        row["stage"] = "save and load"
        save_and_load(smaller, x, folder)
        row |= export(row, smaller, x, folder)
        row["stage"] = ""
    # Whatever goes wrong in a case is what the table has to tell.
    except Exception as error:
        row["error"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return row | {"peak_bytes": peak_bytes()}


def fit_one_step(keras, model, x) -> None:
    """One step; ValueError unless the loss is finite and weights moved."""
    before = [np.array(weight) for weight in model.trainable_weights]
    model.compile(keras.optimizers.SGD(1e-3), "mse")
    targets = np.zeros((16, *model.output.shape[1:]), "float32")
    [loss] = model.fit(x, targets, batch_size=16, verbose=0).history["loss"]
    pairs = zip(before, model.trainable_weights, strict=True)
    still = sum(np.array_equal(old, new) for old, new in pairs)
    if not np.isfinite(loss) or still > len(before) / 2:
        raise ValueError(f"loss {loss}, {still} of {len(before)} weights stayed")


def save_and_load(model, x, folder: pathlib.Path) -> None:
    """ValueError if the loaded model computes something else."""
    model.save(folder / "model.keras")
    np.save(folder / "x.npy", x)
    paths = [str(folder / name) for name in ("model.keras", "x.npy", "y.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True, cwd=folder)
    before, after = model.predict(x, verbose=0), np.load(folder / "y.npy")
    if not np.allclose(before, after, rtol=1e-4, atol=1e-4 * np.abs(before).max()):
        raise ValueError("the loaded model computes something else")


def export(row: dict, model, x, folder: pathlib.Path) -> dict:
    """Both files; "in part float" for an int8 file that needs `allow_float_ops`."""
    import tflite_export

    row["stage"] = "float .tflite"
    path = folder / "float.tflite"
    tflite_export.export(model, path, quantization="none")
    macs = tflite_export.inspect(path).macs / model.channel_report.macs[1]
    row["stage"] = "int8 .tflite"
    options = {"representative_data": x}
    try:
        tflite_export.export(model, folder / "int8.tflite", **options)
        result = "ok"
    except ValueError as error:
        if "allow_float_ops" not in str(error):
            raise
        options["allow_float_ops"] = True
        tflite_export.export(model, folder / "int8.tflite", **options)
        result = "in part float"
    return {"file_macs": macs, "int8": result}


def in_child(case: str) -> dict:
    """What the child process found, or how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        row = {"stage": "process"}
        options = (f"--child={folder}", f"--cases={case}")
        size = f"--image_size={FLAGS.image_size}"
        try:
            child = subprocess.run(
                [sys.executable, __file__, *options, size],
                capture_output=True,
                text=True,
                timeout=FLAGS.timeout,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            )
            said = child.stderr.strip().splitlines()[-1:]
            row["error"] = f"exit code {child.returncode}: {said}"
        except subprocess.TimeoutExpired:
            row["error"] = f"did not finish within {FLAGS.timeout} seconds"
        path = pathlib.Path(folder, "row.json")
        if path.exists():
            row = json.loads(path.read_text())
    print(json.dumps({"model": case} | row), file=sys.stderr, flush=True)
    return {"model": case} | row


STAGES = (
    *("process", "exact", "prune", "fit", "save and load", "float .tflite"),
    "int8 .tflite",
)


def table_row(row: dict) -> tuple:
    def said(stage: str) -> str:
        if row["stage"] == stage:
            return "fails"
        done = not row["stage"] or STAGES.index(row["stage"]) > STAGES.index(stage)
        return "ok" if done else ""

    number = lambda key, form: format(row[key], form) if key in row else ""  # noqa: E731
    return (
        row["model"],
        number("exact", ".0e") or said("exact"),
        *(number("groups", "d"), number("frozen", "d"), number("macs", ".2%")),
        *(number("params", ".1%"), number("seconds", ".1f") or said("prune")),
        *(said("fit"), said("save and load"), said("float .tflite")),
        number("file_macs", ".2%"),
        row.get("int8", said("int8 .tflite")),
        f"{row['peak_bytes'] / 2**20:,.0f}" if "peak_bytes" in row else "",
    )


def main(argv):
    del argv
    names = {case.removeprefix("head:") for case in FLAGS.cases}
    if unknown := names - {*MODELS, *NETS}:
        raise app.UsageError(f"--cases does not know {', '.join(sorted(unknown))}")
    if FLAGS.child:
        warnings.simplefilter("ignore")
        folder = pathlib.Path(FLAGS.child)
        row = run_case(FLAGS.cases[0], folder)
        (folder / "row.json").write_text(json.dumps(row))
        return 0
    rows = [in_child(case) for case in FLAGS.cases]
    align = ("left", *("right",) * (len(HEADERS) - 1))
    table = [table_row(row) for row in rows]
    print(tabulate(table, HEADERS, "github", disable_numparse=True, colalign=align))
    for row in rows:
        if row["stage"]:
            print(f"{row['model']}, {row['stage']}: {row['error']}")
    met = [not row["stage"] and abs(row["macs"] / 0.5 - 1) <= 0.01 for row in rows]
    print(f"{sum(met)} of {len(rows)} come through within 1 % of macs=0.5")
    return 0 if all(met) else 1


if __name__ == "__main__":
    app.run(main)
