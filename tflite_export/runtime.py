"""Load a `.tflite` file with LiteRT, without risk to the calling process."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tflite_export.flatbuffer import bad_file, named_ends, parse, read_bytes
from tflite_export.quiet import quiet_stderr

KERNELS = {
    "xnnpack": OpResolverType.BUILTIN,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}
_CHECK_SECONDS = 600
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "check_file.py")
_announced: list[str] = []
_waiting: list[subprocess.Popen] = []


@dataclass(frozen=True)
class LoadedFile:
    """An allocated interpreter with its inputs and outputs by signature name.

    `inputs` and `outputs` map a name to LiteRT's tensor details, in the order of
    the graph. Inputs of files written by `export` are in the order of the model.
    """

    interpreter: Interpreter
    inputs: dict[str, dict]
    outputs: dict[str, dict]


def load(path, *, threads: int = 1, kernels: str = "xnnpack") -> LoadedFile:
    """Check the file with these kernels in a child process, load and allocate it.

    Args:
        path: File name of a `.tflite` file.
        threads: CPU threads, at least 1.
        kernels: "xnnpack" for LiteRT's default, "builtin" for its own optimised
            kernels without that delegate, "reference" for the plain ones.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a `.tflite` file, or cannot be loaded and run.
    """
    check_kernels(kernels)
    content = read_bytes(path)
    model = parse(content, path)
    failure = load_failure(path, kernels=kernels)
    if failure:
        raise bad_file(path, f"LiteRT's {kernels} kernels cannot run it ({failure})")
    # From the bytes that were parsed: the file may change meanwhile.
    interpreter = new_interpreter(content, threads, kernels)
    inputs = {d["index"]: d for d in interpreter.get_input_details()}
    outputs = {d["index"]: d for d in interpreter.get_output_details()}
    return LoadedFile(
        interpreter,
        {name: inputs[index] for name, index in named_ends(model, "inputs").items()},
        {name: outputs[index] for name, index in named_ends(model, "outputs").items()},
    )


def new_interpreter(content: bytes, threads: int, kernels: str) -> Interpreter:
    """An allocated interpreter of a file that is known to load."""
    # LiteRT announces its XNNPACK delegate once in a process, on standard error.
    first = kernels == "xnnpack" and not _announced
    with quiet_stderr() if first else contextlib.nullcontext():
        interpreter = Interpreter(
            model_content=content,
            num_threads=threads,
            experimental_op_resolver_type=KERNELS[kernels],
        )
        interpreter.allocate_tensors()
    if first:
        _announced.append(kernels)
    return interpreter


def check_kernels(kernels) -> None:
    """ValueError unless `kernels` names a set of kernels."""
    if not isinstance(kernels, str) or kernels not in KERNELS:
        raise ValueError(
            f"`kernels` must be one of {', '.join(map(repr, KERNELS))}. "
            f"Received: kernels={kernels!r}"
        )


def load_failure(path, *, kernels: str = "xnnpack") -> str:
    """Why LiteRT cannot load and run the file in a child process, "" if it can.

    The answer is remembered for a path, its modification time and its size.
    """
    status = os.stat(path)
    real = os.path.realpath(path)
    return _load_failure(real, status.st_mtime_ns, status.st_size, kernels)


@lru_cache(maxsize=256)
def _load_failure(path: str, mtime: int, size: int, kernels: str) -> str:
    child = _waiting.pop() if _waiting else _start(_SCRIPT)
    return _outcome(child, json.dumps([path, KERNELS[kernels].name]))[1]


@contextlib.contextmanager
def check_ahead() -> Iterator[None]:
    """Start the child of the next `load_failure` now, to load LiteRT meanwhile."""
    child = _start(_SCRIPT)
    _waiting.append(child)
    try:
        yield
    finally:
        if child in _waiting:
            _waiting.remove(child)
            child.kill()
            child.communicate()


def run_child(script: str, *arguments: str) -> tuple[str, str]:
    """Run a script of this folder in a child process.

    Returns:
        What it printed, and why it failed: "" if it did not.
    """
    return _outcome(_start(script, *arguments), "")


def _start(script: str, *arguments: str) -> subprocess.Popen:
    # -P keeps this folder, whose inspect.py hides the standard one, off sys.path.
    command = [sys.executable, "-P", script, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def _outcome(child: subprocess.Popen, given: str) -> tuple[str, str]:
    try:
        output, errors = child.communicate(given.encode(), timeout=_CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return "", f"it did not finish within {_CHECK_SECONDS} seconds"
    printed = output.decode(errors="replace")
    if child.returncode == 0:
        return printed, ""
    lines = errors.decode(errors="replace").strip().splitlines()
    # LiteRT's messages may span lines; they begin with the name of the exception.
    starts = [i for i, line in enumerate(lines) if re.match(r"\w+Error: ", line)]
    message = " ".join(lines[starts[-1] if starts else -1 :]) or "no message"
    if child.returncode < 0:
        message = f"the process died with signal {-child.returncode}: {message}"
    return printed, message
