import os
import subprocess
import sys

import numpy as np
import pytest

import tflite_export


def _run(*flags, **variables):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        **variables,
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


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(model, x, tmp_path):
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "x.npy", x)
    paths = [tmp_path / f"{seed}.tflite" for seed in (1, 2)]
    for seed, path in enumerate(paths):
        done = _run(
            f"--model={tmp_path / 'm.keras'}",
            f"--output={path}",
            f"--representative_data={tmp_path / 'x.npy'}",
            PYTHONHASHSEED=str(seed),
        )
        assert done.returncode == 0, done.stderr
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_labels_and_other_options_reach_the_file(model, tmp_path):
    model.save(tmp_path / "m.keras")
    labels = ["ant", "bee", "cat", "dog", "eel"]
    (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    path = tmp_path / "m.tflite"
    done = _run(
        f"--model={tmp_path / 'm.keras'}",
        f"--output={path}",
        "--quantization=float16",
        f"--labels={tmp_path / 'labels.txt'}",
        "--mean=127.5",
        "--std=127.5",
    )
    assert done.returncode == 0, done.stderr
    assert list(tflite_export.read_metadata(path).labels) == labels
    assert list(tflite_export.read_metadata(path).mean) == [127.5]
    assert "DEQUANTIZE" in done.stdout
    done = _run(
        f"--model={tmp_path / 'm.keras'}",
        f"--output={path}",
        "--quantization=none",
        "--batch_size=0",
    )
    assert done.returncode == 0, done.stderr
    assert tflite_export.predict(path, np.ones((7, 8, 8, 3))).shape == (7, 5)


def test_the_command_line_inspects_and_benchmarks(int8_file):
    assert "1x6x6x4" in _run(f"--inspect={int8_file}").stdout
    timed = _run(f"--benchmark={int8_file}", "--threads=2", "--kernels=reference")
    assert "median" in timed.stdout
    assert "2 threads" in timed.stdout
    assert "reference" in timed.stdout


def test_the_command_line_writes_a_c_array(int8_file, tmp_path):
    header, source = tmp_path / "m.h", tmp_path / "m.cc"
    done = _run(f"--c_array={int8_file}", f"--header={header}", f"--source={source}")
    assert done.returncode == 0, done.stderr
    assert "_model_data" in header.read_text()
    assert "alignas(16)" in source.read_text()
    assert "`--header`" in _run(f"--c_array={int8_file}").stderr


def test_an_error_is_one_line_and_exit_status_1(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"not a model")
    for flags in ([f"--inspect={path}"], [], ["--inspect=/no/such.tflite"]):
        done = _run(*flags)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
