import os
import subprocess
import sys

import numpy as np

import tflite_export


def _run(*flags):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
    }
    return subprocess.run(
        [sys.executable, "-m", "tflite_export", *flags],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_command_line_writes_the_file_that_export_writes(
    model, int8_file, x, tmp_path
):
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    path = tmp_path / "m.tflite"
    done = _run(
        f"--model={tmp_path / 'm.keras'}",
        f"--output={path}",
        "--quantization=int8",
        f"--representative_data={tmp_path / 'x.npy'}",
    )
    assert done.returncode == 0, done.stderr
    assert "CONV_2D" in done.stdout
    np.testing.assert_array_equal(
        tflite_export.predict(path, x), tflite_export.predict(int8_file, x)
    )


def test_the_command_line_inspects_and_benchmarks(int8_file):
    assert "1x6x6x4" in _run(f"--inspect={int8_file}").stdout
    assert "median" in _run(f"--benchmark={int8_file}").stdout


def test_an_error_is_one_line_and_exit_status_1(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"not a model")
    for flags in ([f"--inspect={path}"], [], ["--inspect=/no/such.tflite"]):
        done = _run(*flags)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
