"""Do exported files compute the same int8 numbers on ARM as on this machine?

    python benchmarks/arm_agreement.py --work_dir=runs/arm

Runs every file on the same random inputs with LiteRT's reference kernels and with its
default kernels (XNNPACK), on this x86 machine and in LiteRT's aarch64 build, emulated
by QEMU; prints which share of the outputs is equal bit for bit, and the largest
difference in output steps. `--files=a.tflite,b.tflite` takes files of your own; without
it small Keras models are exported. Exits with 1 if anything could not be run.
Emulation says nothing about speed.

Needs Debian on x86-64, with `apt-get install qemu-user-static`. The arm64 Python comes
from Debian's packages, unpacked under `--work_dir`: nothing is installed, and the
system's packages and architectures stay as they are.
"""

import glob
import importlib.metadata
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
from absl import app, flags
from keras import layers
from tabulate import tabulate

import tflite_export
from tflite_export.runtime import load

FLAGS = flags.FLAGS
flags.DEFINE_string("work_dir", None, "Keeps the ARM environment for the next run.")
flags.DEFINE_list("files", [], "The .tflite files to run instead of the examples.")
flags.DEFINE_integer("inputs", 20, "Random inputs for each file.", lower_bound=1)
flags.DEFINE_string("cpu", "cortex-a76", "The processor that QEMU emulates.")
flags.DEFINE_string("litert", "2.1.6", "The version of LiteRT's build for ARM.")

CHILD = pathlib.Path(__file__).with_name("arm_child.py")
# Ranges of gamma, beta, moving mean and moving variance.
NORMS = ((0.5, 1.5), (-0.5, 0.5), (-0.1, 0.1), (0.1, 0.5))
FAILURES = (OSError, RuntimeError, ValueError, subprocess.TimeoutExpired)
HEADERS = (
    *("file", "outputs", "distinct"),
    "ARM reference vs x86 reference",
    "ARM XNNPACK vs x86 reference",
    "x86 XNNPACK vs x86 reference",
    "ARM XNNPACK vs x86 XNNPACK",
)


def command_output(command: list) -> str:
    """Run a command; an error carries the last lines it wrote."""
    command = [str(word) for word in command]
    done = subprocess.run(command, text=True, capture_output=True, timeout=1800)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-5:])
        raise RuntimeError(f"`{' '.join(command)}`, {done.returncode}: {said}")
    return done.stdout


def arm_python(root: pathlib.Path) -> str:
    """The unpacked interpreter, such as root/usr/bin/python3.11."""
    return glob.glob(f"{root}/usr/bin/python3.*[0-9]")[0]


def arm_command(folder: pathlib.Path) -> list:
    """What runs ARM's Python with LiteRT; unpacks both where the folder lacks them."""
    if platform.machine() != "x86_64":
        raise RuntimeError(f"Run this on x86-64. Received: {platform.machine()}")
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not qemu:
        raise RuntimeError("QEMU was not found: `apt-get install qemu-user-static`.")
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise RuntimeError(
            "`apt-get` or `dpkg` was not found: run this on Debian, or in a container "
            "(`docker run -it debian`)."
        )
    root, packages = folder / "root", folder / f"litert-{FLAGS.litert}"
    if not root.exists():
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            unpack_debian(pathlib.Path(partial)).rename(root)
    if not packages.exists():
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            unpack_wheels(pathlib.Path(partial), root).rename(packages)
    variables = ("-E", f"PYTHONPATH={packages}", "-U", "PYTHONHOME")
    return [qemu, "-cpu", FLAGS.cpu, "-L", root, *variables, arm_python(root)]


def unpack_debian(folder: pathlib.Path) -> pathlib.Path:
    """A root folder with arm64 Python and all it depends on, installed nowhere."""
    print("Downloading the arm64 Python", flush=True)
    for name in ("state/lists/partial", "cache/archives/partial", "root"):
        (folder / name).mkdir(parents=True)
    # An empty list of installed packages: everything is downloaded.
    (folder / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::Cache": folder / "cache",
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "status",
    }
    apt = ["apt-get", *(f"-o{name}={value}" for name, value in options.items())]
    command_output([*apt, "update"])
    wanted = ("--download-only", "--no-install-recommends", "python3", "libstdc++6")
    command_output([*apt, "install", "--yes", *wanted])
    for package in sorted((folder / "cache/archives").glob("*.deb")):
        command_output(["dpkg", "-x", package, folder / "root"])
    return folder / "root"


def unpack_wheels(folder: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
    """A folder with LiteRT for aarch64 and what it needs, for the unpacked Python."""
    print(f"Downloading LiteRT {FLAGS.litert} for aarch64", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    platforms = [f"--platform=manylinux{v}_aarch64" for v in ("_2_28", "_2_27", "2014")]
    version = arm_python(root).rpartition("python")[2]
    target = ["--only-binary=:all:", f"--python-version={version}", *platforms]
    wheels, wanted = folder / "wheels", f"ai-edge-litert=={FLAGS.litert}"
    command_output([*pip, *target, f"--target={wheels}", wanted])
    return wheels


def conv_bn_relu(x, filters=8, strides=1):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def depthwise(x):
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(conv_bn_relu(x))
    return layers.Conv2D(8, 1)(layers.ReLU(6.0)(layers.BatchNormalization()(x)))


def residual_add(x):
    x = conv_bn_relu(x)
    return layers.ReLU()(layers.Add()([x, layers.Conv2D(8, 3, padding="same")(x)]))


def concat(x):
    x = conv_bn_relu(x)
    branches = [layers.Conv2D(4, 1)(x), layers.MaxPooling2D(3, 1, padding="same")(x)]
    return layers.Conv2D(8, 1)(layers.Concatenate()(branches))


def squeeze_excite(x):
    x = conv_bn_relu(x)
    squeezed = layers.GlobalAveragePooling2D(keepdims=True)(x)
    squeezed = layers.Conv2D(4, 1, activation="relu")(squeezed)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(squeezed)
    return layers.Multiply()([x, gate])


def transposed_conv(x):
    return layers.Conv2DTranspose(4, 3, 2, padding="same")(conv_bn_relu(x))


def separable(x):
    return layers.SeparableConv2D(8, 3, padding="same")(conv_bn_relu(x))


def hard_swish(x):
    return layers.Activation("hard_swish")(layers.Conv2D(8, 3)(conv_bn_relu(x)))


def sigmoid_head(x, activation="sigmoid"):
    x = layers.GlobalAveragePooling2D()(conv_bn_relu(x, 16, strides=2))
    return layers.Dense(10, activation=activation)(x)


def softmax_head(x):
    return sigmoid_head(x, "softmax")


def tanh_head(x):
    return sigmoid_head(x, "tanh")


EXAMPLES = (
    *(conv_bn_relu, depthwise, residual_add, concat, squeeze_excite, transposed_conv),
    *(separable, hard_swish, sigmoid_head, softmax_head, tanh_head),
)


def export_examples(folder: str) -> list[str]:
    """Export each example with seeded weights, statistics and int8 ends."""
    random, paths = np.random.default_rng(0), []
    data = random.uniform(-1, 1, size=(100, 16, 16, 3)).astype("float32")
    for build in EXAMPLES:
        keras.utils.set_random_seed(0)
        image = keras.Input((16, 16, 3))
        model = keras.Model(image, build(image))
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                size = layer.gamma.shape
                layer.set_weights([random.uniform(*ends, size) for ends in NORMS])
        paths.append(f"{folder}/{build.__name__}.tflite")
        types = {"input_dtype": "int8", "output_dtype": "int8"}
        tflite_export.export(model, paths[-1], representative_data=data, **types)
    return paths


def random_inputs(path: str) -> list[np.ndarray]:
    """Seeded inputs, in the order of the graph, that use a type's whole range."""
    random, inputs = np.random.default_rng(0), []
    for name, detail in load(path).inputs.items():
        shape, dtype = (FLAGS.inputs, *detail["shape"]), np.dtype(detail["dtype"])
        if dtype.kind == "f":
            inputs.append(random.normal(size=shape).astype(dtype))
        elif detail["quantization"][0]:
            info = np.iinfo(dtype)
            inputs.append(random.integers(info.min, info.max, shape, dtype, True))
        else:
            raise ValueError(
                "Inputs must be quantised or float, to be drawn at random. Received: "
                f"input {name!r} of {path} is {dtype} without a scale."
            )
    return inputs


def run_file(python: list, path: str, inputs: list, kernels: str) -> list:
    """The file's outputs from a child process with the given Python."""
    with tempfile.TemporaryDirectory() as folder:
        given, results = f"{folder}/inputs.npz", f"{folder}/outputs.npz"
        np.savez(given, **{str(i): values for i, values in enumerate(inputs)})
        command_output([*python, CHILD, path, given, results, kernels])
        with np.load(results, allow_pickle=False) as arrays:
            return [arrays[str(position)] for position in range(len(arrays.files))]


def agreement(outputs: list[np.ndarray], reference: list[np.ndarray]) -> str:
    """The share of equal numbers, and the largest difference in the file's own steps.

    The difference of float outputs, which have no steps, is in their own unit.
    """
    equal, largest = [], 0
    for ours, theirs in zip(outputs, reference, strict=True):
        equal.append((ours == theirs).ravel())
        wide = np.float64 if ours.dtype.kind == "f" else np.int64
        largest = max(largest, np.abs(ours.astype(wide) - theirs.astype(wide)).max())
    return f"{np.concatenate(equal).mean():.2%}, {largest:.3g}"


def compare_file(path: str, arm: list) -> tuple:
    """A row of the table."""
    inputs = random_inputs(path)
    here = [sys.executable, "-P"]
    reference = run_file(here, path, inputs, "reference")
    xnnpack = run_file(here, path, inputs, "xnnpack")
    arm_xnnpack = run_file(arm, path, inputs, "xnnpack")
    return (
        pathlib.Path(path).stem,
        sum(output.size for output in reference),
        len(np.unique(np.concatenate([output.ravel() for output in reference]))),
        agreement(run_file(arm, path, inputs, "reference"), reference),
        agreement(arm_xnnpack, reference),
        agreement(xnnpack, reference),
        agreement(arm_xnnpack, xnnpack),
    )


def versions(arm: list) -> str:
    here = importlib.metadata.version("ai-edge-litert")
    qemu = command_output([arm[0], "--version"]).splitlines()[0]
    return (
        f"x86: LiteRT {here}\n"
        f"ARM: LiteRT {FLAGS.litert}, {pathlib.Path(arm[-1]).name}, {qemu}, {FLAGS.cpu}"
    )


def main(argv):
    del argv
    rows, failures = [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(FLAGS.work_dir or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            arm = arm_command(folder)
        except FAILURES as error:
            sys.exit(f"The ARM environment could not be made: {error}")
        for path in FLAGS.files or export_examples(temporary):
            try:
                rows.append(compare_file(path, arm))
            except FAILURES as error:
                failures.append(f"{path}: {error}")
    print(versions(arm))
    print("Share of outputs equal bit for bit, largest difference in output steps:\n")
    print(tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True))
    for failure in failures:
        print(f"Could not be run: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    app.run(main)
