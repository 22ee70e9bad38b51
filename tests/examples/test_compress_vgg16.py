"""The main job as a user runs it: in a process of its own."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import tflite_export

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "compress_vgg16.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_output_folder_that_cannot_be_written_stops_it_before_training(tmp_path):
    (tmp_path / "file").write_text("in the way")
    process = run("--quick", f"--output_dir={tmp_path / 'file' / 'out'}")
    assert process.returncode != 0
    assert "Cannot write to --output_dir" in process.stderr
    assert "Training" not in process.stdout


def test_the_teacher_itself_cannot_be_compressed_without_its_weights(tmp_path):
    process = run("--quick", "--compress_teacher", f"--output_dir={tmp_path / 'out'}")
    assert process.returncode != 0
    assert "--compress_teacher needs VGG16's weights" in process.stdout + process.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_quick_job_writes_a_student_that_runs_in_litert(tmp_path):
    process = run("--quick", f"--output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["format"] for row in rows] == ["float32", "int8"] * 3 + ["int8"] * 2
    name = "student, distilled, 70% of MACs, 80% zeros, aware"
    assert rows[-1]["model"] == name
    assert rows[-1]["zeros"] > 0.7999 > 0.1 > rows[-2]["zeros"]
    assert rows[-1]["macs"] == rows[-2]["macs"] < 0.75 * rows[-3]["macs"]
    assert min(row["test_accuracy"] for row in rows) > 0.5
    (tmp_path / "student_aware.stage.json").unlink()
    process = run("--quick", "--resume", f"--output_dir={tmp_path}")
    assert process.returncode == 0, process.stderr
    assert "student_smaller: taken from" in process.stdout
    again = json.loads((tmp_path / "results.json").read_text())["rows"]
    for row in (*rows, *again):
        assert row.pop("latency_ms") > 0  # measured anew
    assert again[:-1] == rows[:-1]
    assert "<svg" in (tmp_path / "report.html").read_text()
    process = run("--quick", "--resume", "--seed=5", f"--output_dir={tmp_path}")
    assert "seed: now 5, then 0" in process.stderr
    for stem in ("student", "student_smaller", "student_aware"):
        path = tmp_path / f"{stem}_int8.tflite"
        logits = tflite_export.predict(path, np.zeros((3, 28, 28, 1)))
        assert logits.shape == (3, 10)
