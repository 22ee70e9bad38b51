"""Whether a `.tflite` file gives the same bits on a microcontroller's runtime."""

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np

from tflite_export.inspect import inspect
from tflite_export.predict import checked_inputs, quantise
from tflite_export.runtime import LoadedFile, load

_SECONDS = 1800
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check_micro.py")
_MISSING_OP = re.compile(r"Didn't find op for builtin opcode '(\w+)'")


@dataclass(frozen=True)
class MicroCheck:
    """Outputs of tflite-micro against those of LiteRT's reference kernels.

    `equal` is True when every bit of every output is. `different` counts those of the
    `values` compared that are not, and `max_difference` is the largest difference: in
    output steps where an output is quantised, absolute where it is float.
    `arena_bytes` is the smallest tensor arena in which tflite-micro prepares the file
    on this machine, a multiple of 16.
    """

    equal: bool
    different: int
    values: int
    max_difference: float
    examples: int
    arena_bytes: int

    def __str__(self) -> str:
        found = "bit for bit equal to LiteRT's reference kernels"
        if not self.equal:
            found = (
                f"{self.different:,} of {self.values:,} values differ from LiteRT's "
                f"reference kernels, by at most {self.max_difference:.3g}"
            )
        return (
            f"tflite-micro: {found}, over {self.examples} examples; arena "
            f"{self.arena_bytes:,} bytes"
        )


def verify_micro(path, x, arena_bytes: int | None = None) -> MicroCheck:
    """Run a file in tflite-micro and compare it with LiteRT's reference kernels.

    tflite-micro is the runtime of microcontrollers, here as the PyPI package
    `tflite-micro` (extra `micro`, for Linux on x86-64). Both run in a child process,
    which a file that they cannot take may end. Convolutions, pools and the common
    activations are equal bit for bit; int8 Dense layers are not quite: LiteRT rounds
    their sums once and tflite-micro twice, so that a value next to the edge of a step
    may differ by that step.

    Args:
        path: File name of a `.tflite` file with a fixed batch.
        x: Real numbers as `tflite_export.predict` takes them.
        arena_bytes: Size of the tensor arena, to check that the file runs in it. By
            default the smallest that works.

    Returns:
        A `MicroCheck`; `str()` of it is one line.

    Raises:
        ImportError: If tflite-micro is not installed.
        OSError: If the file cannot be read.
        ValueError: If `x` does not fit the file, the batch is not fixed, tflite-micro
            lacks an op of the file, or the arena is too small.

    Example:

    ```python
    check = tflite_export.verify_micro("m.tflite", x_test[:100])
    assert check.equal or check.max_difference <= 1
    print(check.arena_bytes)
    ```
    """
    _check_arena_bytes(arena_bytes)
    if importlib.util.find_spec("tflite_micro") is None:
        raise ImportError(
            "`verify_micro` needs tflite-micro, which is not installed: "
            'pip install "keras_compress[micro]"'
        )
    loaded = load(path)
    _check_fixed(loaded)
    arrays = checked_inputs(loaded, x)
    examples = len(next(iter(arrays.values())))
    runs = [_runs(arrays[name], detail) for name, detail in loaded.inputs.items()]
    found = _run_both(path, runs, arena_bytes)
    smallest = int(found["arena_bytes"])
    if "micro_0" not in found:
        raise ValueError(
            f"`arena_bytes` must be at least {smallest} for this file, as tflite-micro "
            f"plans its memory. Received: arena_bytes={arena_bytes}"
        )
    different, values, largest = 0, 0, 0.0
    for place in range(len(loaded.outputs)):
        micro = np.concatenate(found[f"micro_{place}"])[:examples]
        reference = np.concatenate(found[f"reference_{place}"])[:examples]
        count, most = _difference(micro, reference)
        different, largest = different + count, max(largest, most)
        values += micro.size
    return MicroCheck(different == 0, different, values, largest, examples, smallest)


def _check_arena_bytes(arena_bytes) -> None:
    whole = isinstance(arena_bytes, int) and not isinstance(arena_bytes, bool)
    if arena_bytes is not None and not (whole and 0 < arena_bytes < 1 << 31):
        raise ValueError(
            "`arena_bytes` must be a positive int below 2**31, or None for the "
            f"smallest arena. Received: arena_bytes={arena_bytes!r}"
        )


def _check_fixed(loaded: LoadedFile) -> None:
    for name, detail in loaded.inputs.items():
        shape = [int(size) for size in detail["shape_signature"]]
        if -1 in shape:
            raise ValueError(
                "`path` must be a file whose shapes are fixed, as tflite-micro plans "
                "its memory ahead; export it with a fixed batch: batch_size=1. "
                f"Received: input {name!r} of shape {shape} (-1 is not fixed)"
            )


def _runs(array: np.ndarray, detail: dict) -> np.ndarray:
    """The examples as the input takes them, of shape (runs, *shape of the input).

    The last run is filled with zeros.
    """
    shape = tuple(int(size) for size in detail["shape"])
    runs = -(-len(array) // shape[0])
    filled = np.zeros((runs * shape[0], *shape[1:]), array.dtype)
    filled[: len(array)] = array
    return quantise(filled, detail).reshape(runs, *shape)


def _run_both(path, runs: list[np.ndarray], arena_bytes) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        inputs = os.path.join(folder, "inputs.npz")
        outputs = os.path.join(folder, "outputs.npz")
        np.savez(inputs, **{str(place): array for place, array in enumerate(runs)})
        # -P keeps this folder, whose inspect.py hides the standard one, off sys.path.
        command = [sys.executable, "-P", _SCRIPT, os.fspath(path), inputs, outputs]
        if arena_bytes is not None:
            command.append(str(arena_bytes))
        try:
            child = subprocess.run(
                command, capture_output=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"`x` must hold fewer examples: they did not run within {_SECONDS} "
                f"seconds. Received: {len(runs[0])} runs"
            ) from error
        if child.returncode != 0:
            raise ValueError(_failure_text(path, child))
        with np.load(outputs, allow_pickle=False) as loaded:
            return dict(loaded)


def _failure_text(path, child: subprocess.CompletedProcess) -> str:
    said = child.stderr.decode(errors="replace")
    missing = _MISSING_OP.search(said)
    if missing:
        op = missing[1]
        rows = [row for row in inspect(path).ops if row.name == op]
        places = ", ".join(dict.fromkeys(row.layer or row.tensor for row in rows))
        return (
            f"tflite-micro does not have the op {op}. Replace the layers that it comes "
            "from, or write a kernel for it on your device. Received: path="
            f"{path} with {op} in {places}"
        )
    stages = child.stdout.decode(errors="replace").split("\n")[:-1]
    runtime = stages[-1] if stages else "tflite-micro"
    lines = said.strip().splitlines()
    reason = lines[-1] if lines else "no message"
    if child.returncode < 0:
        reason = f"the process died with signal {-child.returncode}: {reason}"
    return (
        f"`path` must be a file that {runtime} can run; int8 files have the best "
        "chance. Look for types that it does not take and for scales near zero in "
        f"`tflite_export.inspect(path).tensors`. Received: path={path} ({reason})"
    )


def _difference(micro: np.ndarray, reference: np.ndarray) -> tuple[int, float]:
    """How many values differ in a bit, and by how much at most."""
    if micro.shape != reference.shape or micro.dtype != reference.dtype:
        raise ValueError(
            "tflite-micro and LiteRT must give outputs of one shape and type. "
            f"Received: {micro.shape} {micro.dtype} and {reference.shape} "
            f"{reference.dtype}"
        )
    bits = f"V{micro.dtype.itemsize}"
    differs = np.ascontiguousarray(micro).view(bits) != np.ascontiguousarray(
        reference
    ).view(bits)
    gaps = np.abs(micro[differs].astype(float) - reference[differs].astype(float))
    return int(differs.sum()), float(np.nan_to_num(gaps, nan=np.inf).max(initial=0))
