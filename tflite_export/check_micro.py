"""Run a `.tflite` file in tflite-micro and in LiteRT's reference kernels.

`python check_micro.py FILE INPUTS OUTPUTS [ARENA_BYTES]`, in a child process, because
a file that tflite-micro cannot take may end the process. INPUTS is a .npz of one array
per input, named by its place in the file, "0", "1", ..., whose first axis counts runs.
OUTPUTS becomes a .npz of "arena_bytes", the smallest arena, and, unless ARENA_BYTES is
too small, the outputs "micro_0", ..., and "reference_0", .... Imports LiteRT, NumPy
and tflite-micro only.
"""

import contextlib
import os
import re
import resource
import sys
import tempfile
import warnings

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_micro import runtime

_STEP = 16
_LARGEST = 1 << 30
_TOO_SMALL = re.compile(r"missing: \d+|Too many buffers")


def check(path: str, inputs: str, outputs: str, arena_bytes: int | None) -> None:
    """Find the smallest arena and run all examples in both runtimes."""
    with open(path, "rb") as file:
        content = file.read()
    with np.load(inputs, allow_pickle=False) as loaded:
        arrays = [loaded[str(place)] for place in range(len(loaded.files))]
    smallest = smallest_arena(content)
    found = {"arena_bytes": np.asarray(smallest)}
    arena = arena_bytes or smallest
    if not failure_with(content, arena):
        print("LiteRT's reference kernels", flush=True)
        reference = _run_reference(content, arrays)
        print("tflite-micro", flush=True)
        micro = _run_micro(content, arena, arrays, len(reference))
        for place, (ours, theirs) in enumerate(zip(micro, reference, strict=True)):
            found |= {f"micro_{place}": ours, f"reference_{place}": theirs}
    np.savez(outputs, **found)


def smallest_arena(content: bytes) -> int:
    """The smallest multiple of 16 bytes in which tflite-micro prepares the file.

    It is tried out, because planning the memory may take more than the bytes that
    tflite-micro reports as used afterwards.
    """
    low, high = 0, 1 << 16
    while failure := failure_with(content, high):
        if not _TOO_SMALL.search(failure) or high >= _LARGEST:
            raise RuntimeError(failure)
        low, high = high, 2 * high
    while high - low > _STEP:
        middle = (low + high) // (2 * _STEP) * _STEP
        if failure_with(content, middle):
            low = middle
        else:
            high = middle
    return high


def failure_with(content: bytes, arena_bytes: int) -> str:
    """What tflite-micro says against such an arena, "" if it prepares the file.

    It is asked in a process of its own: too small an arena may end that.
    """
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                os.dup2(said.fileno(), 2)
                runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
                status = 0
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return ""
        said.seek(0)
        text = " ".join(said.read().decode(errors="replace").split())
    died = f" The process died with signal {-status}." if status < 0 else ""
    return f"{text}{died}".strip() or f"exit status {status}"


def _run_micro(content, arena_bytes, arrays, outputs) -> list[np.ndarray]:
    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    parts = [[] for _ in range(outputs)]
    for run in zip(*arrays, strict=True):
        for place, values in enumerate(run):
            interpreter.set_input(values, place)
        interpreter.invoke()
        for place, part in enumerate(parts):
            part.append(interpreter.get_output(place))
    return [np.stack(part) for part in parts]


def _run_reference(content, arrays) -> list[np.ndarray]:
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    inputs = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    parts = [[] for _ in outputs]
    for run in zip(*arrays, strict=True):
        for detail, values in zip(inputs, run, strict=True):
            interpreter.set_tensor(detail["index"], values)
        interpreter.invoke()
        for detail, part in zip(outputs, parts, strict=True):
            part.append(interpreter.get_tensor(detail["index"]))
    return [np.stack(part) for part in parts]


if __name__ == "__main__":
    # The processes that an arena ends leave no core files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Python 3.12 warns when a process with NumPy's threads forks.
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        check(*sys.argv[1:4], int(sys.argv[4]) if len(sys.argv) > 4 else None)
    # The last line of stderr is what the parent process reports.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
