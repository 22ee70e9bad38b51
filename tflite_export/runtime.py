"""Load a `.tflite` file with LiteRT, without risk to the calling process."""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache

from ai_edge_litert.interpreter import Interpreter

from tflite_export.flatbuffer import bad_file, parse, read_bytes, text

_CHECK_SECONDS = 600
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check_file.py")


@dataclass(frozen=True)
class LoadedFile:
    """An allocated interpreter with its inputs and outputs by signature name.

    `inputs` and `outputs` map a name to LiteRT's tensor details, in the order of
    the graph, which for files written by `export` is the order of the model.
    """

    interpreter: Interpreter
    inputs: dict[str, dict]
    outputs: dict[str, dict]


def load(path, *, threads: int = 1) -> LoadedFile:
    """Check the file, load it with the default (XNNPACK) kernels, allocate it.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a `.tflite` file, or cannot be loaded and run.
    """
    content = read_bytes(path)
    model = parse(content, path)
    failure = load_failure(path)
    if failure:
        raise bad_file(path, f"LiteRT cannot run it ({failure})")
    # From the bytes that were parsed: the file may change meanwhile.
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    names = _signature_names(model)
    inputs = interpreter.get_input_details()
    outputs = interpreter.get_output_details()
    return LoadedFile(
        interpreter,
        {names.get(d["index"], d["name"]): d for d in inputs},
        {names.get(d["index"], d["name"]): d for d in outputs},
    )


def load_failure(path) -> str:
    """Why LiteRT cannot load and run the file in a child process, "" if it can.

    The answer is remembered for a path, its modification time and its size.
    """
    status = os.stat(path)
    return _load_failure(os.path.realpath(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _load_failure(path: str, mtime: int, size: int) -> str:
    # -P keeps this folder, whose inspect.py hides the standard one, off sys.path.
    command = [sys.executable, "-P", _SCRIPT, path]
    try:
        child = subprocess.run(
            command, capture_output=True, timeout=_CHECK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not finish within {_CHECK_SECONDS} seconds"
    if child.returncode == 0:
        return ""
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    last = lines[-1] if lines else "no message"
    if child.returncode < 0:
        return f"the process died with signal {-child.returncode}: {last}"
    return last


def _signature_names(model) -> dict[int, str]:
    names = {}
    for signature in model.signatureDefs or []:
        if signature.subgraphIndex == 0:
            for entry in (signature.inputs or []) + (signature.outputs or []):
                names.setdefault(entry.tensorIndex, text(entry.name))
    return names
