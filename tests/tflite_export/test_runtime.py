import time

import numpy as np
import pytest

import tflite_export
from tflite_export import runtime


@pytest.mark.parametrize(
    "call",
    [
        tflite_export.inspect,
        tflite_export.benchmark,
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


def test_flipped_bytes_give_a_result_or_an_error(int8_file, tmp_path):
    content = int8_file.read_bytes()
    random = np.random.default_rng(0)
    x = np.ones((1, 8, 8, 3))
    outcomes = set()
    for trial in range(15):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 4):
            damaged[place] = random.integers(256)
        path = tmp_path / f"{trial}.tflite"
        path.write_bytes(damaged)
        try:
            outcomes.add(tflite_export.predict(path, x).shape)
        except ValueError:
            outcomes.add("refused")
    assert "refused" in outcomes


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
