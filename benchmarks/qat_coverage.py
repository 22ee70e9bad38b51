r"""Which models train quantization-aware and export, and how well the files agree.

    python benchmarks/qat_coverage.py
    python benchmarks/qat_coverage.py --cases=MobileNetV2,u_net --notfmot
    python benchmarks/qat_coverage.py --all_families

Each case, a model of keras.applications or a small net of qat_coverage_nets.py, goes
in a process of its own through `quantize_aware` with calibration data, one step of
`fit`, a `.keras` file and back, an int8 export without representative data, and a
comparison of the file with the loaded model. A case whose export is refused for float
ops is exported again with `allow_float_ops=True`, to count them. The seconds of
`quantize_aware` are without calibration data.

Weights are random, and a deep network amplifies every rounding: "self" is how much the
quantization-aware model itself stays within one step when 1 % of its input values move
by a 255th of their range. The columns of layers tell more: there every layer computes
from what the file has computed up to there, and is compared with the file's tensor.
TFMOT is `quantize_model` on the same model of tf_keras, on the same machine.

Exits with 1 if a case did not come through to the comparison.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import signal
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor

from absl import app, flags
from tabulate import tabulate

FAMILIES = (
    *("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "VGG16"),
    *("VGG19", "EfficientNetB0", "EfficientNetV2B0", "ResNet50", "ResNet50V2"),
    *("Xception", "InceptionV3", "DenseNet121", "ConvNeXtTiny", "NASNetMobile"),
    "InceptionResNetV2",
)
OTHERS = (
    *("ResNet101", "ResNet101V2", "ResNet152", "ResNet152V2", "DenseNet169"),
    *("DenseNet201", *(f"EfficientNetB{size}" for size in range(1, 8))),
    *(f"EfficientNetV2{size}" for size in ("B1", "B2", "B3", "S", "M", "L")),
    *(f"ConvNeXt{size}" for size in ("Small", "Base", "Large", "XLarge")),
    "NASNetLarge",
)
NETS = (
    *("multi_input", "shared_layer", "conv1d_text", "u_net", "attention_block"),
    "nested_vgg16",
)
HEADERS = (
    *("model", "quantize_aware, s", "fit, save, load", "export", "float ops"),
    *("argmax equal", "within one step", "self", "layers: equal", "layers within one"),
    *("peak MiB", "seconds", "TFMOT"),
)

FLAGS = flags.FLAGS
flags.DEFINE_list("cases", [*NETS, *FAMILIES], "Names in keras.applications, or nets.")
flags.DEFINE_bool("all_families", False, "Adds every other model of the families.")
flags.DEFINE_bool("tfmot", True, "Tries TFMOT on the same models of tf_keras.")
flags.DEFINE_integer("image_size", 96, "Height and width of images.", lower_bound=32)
flags.DEFINE_integer("examples", 24, "Calibration examples.", lower_bound=8)
flags.DEFINE_integer("timeout", 1800, "Seconds for one case.", lower_bound=1)
flags.DEFINE_integer("jobs", 1, "Cases to run at the same time.", lower_bound=1)
flags.DEFINE_string("output_json", None, "Keeps the results in this file as well.")

CHILD = pathlib.Path(__file__).with_name("qat_coverage_child.py")


def run_in_child(name: str, *options: str) -> dict:
    """What the child process found, or how it ended: it may crash or hang."""
    with tempfile.TemporaryDirectory() as folder:
        said = pathlib.Path(folder, "stderr")
        sizes = (str(FLAGS.image_size), str(FLAGS.examples))
        with open(said, "wb") as stream:
            child = subprocess.Popen(
                [sys.executable, CHILD, *options, name, *sizes, folder],
                stdout=stream,
                stderr=stream,
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
                start_new_session=True,
            )
        try:
            code = child.wait(FLAGS.timeout)
        except subprocess.TimeoutExpired:
            return {"error": f"did not finish within {FLAGS.timeout} seconds"}
        finally:
            if child.poll() is None:
                # The child leads a group with what it started itself.
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if code == 0:
            return json.loads(pathlib.Path(folder, "row.json").read_text())
        lines = said.read_text(errors="replace").strip().splitlines() or ["no message"]
        return {"error": f"ended with exit code {code}: {lines[-1]}"}


def full_row(name: str) -> dict:
    """A case and TFMOT's answer to it; tells of it on stderr."""
    row = {"model": name, "stage": "process", "error": ""} | run_in_child(name)
    if FLAGS.tfmot:
        row["tfmot"] = run_in_child(name, "--tfmot")
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def in_float(counts: dict[str, int]) -> int:
    """How many ops compute in float; those that only convert at the edges do not."""
    return sum(n for name, n in counts.items() if "QUANTIZE" not in name)


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _stages_between(stage: str) -> str:
    failed = stage in ("fit", "save and load")
    return "fails" if failed else "" if stage in ("process", "quantize_aware") else "ok"


def table_row(row: dict) -> tuple:
    tfmot = ""
    if "tfmot" in row:
        tfmot = "fails" if row["tfmot"]["error"] else "ok"
    stage, layers = row["stage"], row.get("layers", {})
    export = ""
    if "float_ops" in row:
        export = "in part float" if row["refusal"] else "ok"
    return (
        row["model"],
        f"{row['aware_seconds']:.1f}" if "aware_seconds" in row else "fails",
        _stages_between(stage),
        export if stage != "export" else "fails",
        f"{in_float(row['float_ops'])} of {row['ops']}" if export else "",
        percent(row.get("argmax")),
        percent(row.get("within_one_step")),
        percent(row.get("self")),
        percent(layers.get("equal")),
        percent(layers.get("within_one_step")),
        f"{row['peak_bytes'] / 2**20:,.0f}" if "peak_bytes" in row else "",
        f"{row['seconds']:.0f}" if "seconds" in row else "",
        tfmot,
    )


def remarks(row: dict) -> list[str]:
    """Lines for what the table has no room for."""
    found = []
    if row["stage"]:
        found.append(f"{row['stage']}: {row['error']}")
    if row.get("float_layers"):
        kinds = ", ".join(f"{n} {kind}" for kind, n in row["float_layers"].items())
        found.append(f"left in float: {kinds}")
    if row.get("refusal"):
        found.append(row["refusal"].partition("Received: ")[2])
    if row.get("tfmot", {}).get("error"):
        found.append(f"TFMOT: {row['tfmot']['error']}")
    short = (textwrap.shorten(line, 320, placeholder=" ...") for line in found)
    return [f"{row['model']}, {line}" for line in short]


def report(rows: list[dict]) -> str:
    align = ("left", "right", "left", "left", *("right",) * 8, "left")
    table = tabulate(
        map(table_row, rows),
        HEADERS,
        tablefmt="github",
        disable_numparse=True,
        colalign=align,
    )
    through = sum(not row["stage"] for row in rows)
    whole = sum(not row["stage"] and not row["refusal"] for row in rows)
    lines = [f"{through} of {len(rows)} come through, {whole} of them all int8"]
    if FLAGS.tfmot:
        fine = sum(not row["tfmot"]["error"] for row in rows)
        lines.append(f"TFMOT: {fine} of {len(rows)} made quantization-aware")
    details = [line for row in rows for line in remarks(row)]
    return "\n".join([table, "", *lines, "", *details])


def versions() -> str:
    names = ("tensorflow", "keras", "ai-edge-litert", "tensorflow-model-optimization")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    found.append(f"Python {platform.python_version()}, {os.cpu_count()} CPUs")
    sizes = f"{FLAGS.image_size}x{FLAGS.image_size}, {FLAGS.examples} examples"
    return f"{', '.join(found)}; {sizes}"


def main(argv):
    del argv
    known = {*NETS, *FAMILIES, *OTHERS}
    unknown = sorted(set(FLAGS.cases) - known)
    if unknown or not FLAGS.cases:
        raise app.UsageError(
            f"--cases takes {', '.join(sorted(known))}. Received: {', '.join(unknown)}"
        )
    cases = [*FLAGS.cases, *(OTHERS if FLAGS.all_families else ())]
    with ThreadPoolExecutor(FLAGS.jobs) as pool:
        rows = list(pool.map(full_row, dict.fromkeys(cases)))
    if FLAGS.output_json:
        pathlib.Path(FLAGS.output_json).write_text(json.dumps(rows, indent=1))
    print(f"{versions()}\n\n{report(rows)}")
    return 1 if any(row["stage"] for row in rows) else 0


if __name__ == "__main__":
    app.run(main)
