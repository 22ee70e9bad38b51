import subprocess
import sys
import time

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils

import tflite_export
from tflite_export import runtime
from tflite_export.evaluate import evaluate
from tflite_export.flatbuffer import read_model


@pytest.mark.parametrize(
    "call",
    [
        tflite_export.inspect,
        tflite_export.benchmark,
        lambda path: tflite_export.benchmark(path, kernels="reference", per_op=True),
        lambda path: evaluate(path, (np.ones((1, 8, 8, 3)), [0]), ["accuracy"]),
        lambda path: tflite_export.predict(path, np.ones((1, 8, 8, 3))),
        lambda path: tflite_export.compare(None, path, np.ones((1, 8, 8, 3))),
    ],
)
def test_a_file_that_is_no_tflite_is_an_error_in_every_function(
    call, int8_file, tmp_path
):
    content = int8_file.read_bytes()
    path = tmp_path / "m.tflite"
    for damaged in (b"", b"hello world", content[:7], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="must be a valid"):
            call(path)
    with pytest.raises(FileNotFoundError, match="existing"):
        call(tmp_path / "missing.tflite")
    with pytest.raises(IsADirectoryError):
        call(tmp_path)
    with pytest.raises(ValueError, match="must be a file name"):
        call(3)


def test_every_truncation_is_found_or_harmless(int8_file, tmp_path):
    content = int8_file.read_bytes()
    path = tmp_path / "m.tflite"
    found = 0
    for end in range(0, len(content), 97):
        path.write_bytes(content[:end])
        try:
            tflite_export.inspect(path)
        except ValueError:
            found += 1
    assert found >= len(range(0, len(content), 97)) - 1


def _flipped(content, trials):
    random = np.random.default_rng(0)
    for _ in range(trials):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 4):
            damaged[place] = random.integers(256)
        yield bytes(damaged)


@pytest.mark.parametrize(
    ("kernels", "trials"), [("xnnpack", 15), ("builtin", 10), ("reference", 10)]
)
def test_flipped_bytes_give_a_result_or_an_error(kernels, trials, int8_file, tmp_path):
    x = np.ones((1, 8, 8, 3))
    outcomes = set()
    for trial, damaged in enumerate(_flipped(int8_file.read_bytes(), trials)):
        path = tmp_path / f"{trial}.tflite"
        path.write_bytes(damaged)
        try:
            scores = evaluate(path, (x, [0]), ["accuracy"], kernels=kernels)
            outcomes.add(scores["accuracy"] in (0, 1))
            tflite_export.benchmark(path, kernels=kernels, runs=1, per_op=True)
        except ValueError:
            outcomes.add("refused")
    assert "refused" in outcomes
    assert False not in outcomes


def test_a_process_that_dies_is_reported(int8_file, tmp_path, monkeypatch):
    script = tmp_path / "die.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr(runtime, "_SCRIPT", str(script))
    path = tmp_path / "m.tflite"
    path.write_bytes(int8_file.read_bytes())
    with pytest.raises(ValueError, match="died with signal 6"):
        tflite_export.predict(path, np.ones((1, 8, 8, 3)))


def test_the_load_check_runs_once_for_a_file(int8_file):
    x = np.ones((1, 8, 8, 3))
    tflite_export.predict(int8_file, x)
    start = time.perf_counter()
    tflite_export.predict(int8_file, x)
    assert time.perf_counter() - start < 0.1


def test_each_set_of_kernels_is_checked(int8_file, tmp_path, monkeypatch):
    """A file may run with one set of kernels and end the process with another."""
    script = tmp_path / "die.py"
    script.write_text(
        "import os, sys\nif 'BUILTIN_REF' in sys.stdin.read():\n    os.abort()\n"
    )
    monkeypatch.setattr(runtime, "_SCRIPT", str(script))
    path = tmp_path / "m.tflite"
    path.write_bytes(int8_file.read_bytes())
    x = np.ones((1, 8, 8, 3))
    assert tflite_export.predict(path, x).shape == (1, 5)
    with pytest.raises(ValueError, match="reference kernels cannot run it"):
        tflite_export.predict(path, x, kernels="reference")


def test_a_file_that_runs_for_one_example_only_is_refused(model, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    parsed = read_model(path)
    parsed.subgraphs[0].tensors[0].shapeSignature = [-1, 8, 8, 3]
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(parsed))
    with pytest.raises(ValueError, match="cannot run it"):
        tflite_export.predict(path, np.ones((2, 8, 8, 3)))


def test_the_first_load_says_nothing_on_standard_error(float_file):
    code = (
        "import sys, numpy, tflite_export\n"
        "tflite_export.predict(sys.argv[1], numpy.ones((1, 8, 8, 3)))\n"
        "print('end', file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, str(float_file)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert child.stderr == "end\n"
