import sys

import keras
import pytest

import tflite_export

benchmark = sys.modules["tflite_export.benchmark"]


def test_latency_grows_with_the_work(model, float_file, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=500)
    one = tflite_export.benchmark(float_file, runs=20)
    many = tflite_export.benchmark(path, runs=20)
    assert 0 < one.median_ms <= one.p90_ms
    assert many.median_ms > 5 * one.median_ms
    assert (one.runs, one.threads) == (20, 1)
    assert one.cpu and one.cpu in str(one)


@pytest.mark.parametrize("name", ["threads", "runs"])
def test_a_number_out_of_range_is_named(float_file, name):
    with pytest.raises(ValueError, match=f"`{name}` must be an int of at least 1"):
        tflite_export.benchmark(float_file, **{name: 0})


def test_the_kernels_are_those_asked_for(model, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=500)
    found = {
        kernels: tflite_export.benchmark(path, kernels=kernels, runs=10)
        for kernels in ("xnnpack", "reference")
    }
    assert "reference kernels" in str(found["reference"])
    # The plain loops take several times as long.
    assert found["reference"].median_ms > 2 * found["xnnpack"].median_ms


@pytest.mark.parametrize("kernels", ["xnnpack", "builtin"])
def test_the_time_of_each_op_grows_with_its_work(kernels, tmp_path):
    data = keras.Input((32, 32, 8))
    small = keras.layers.Conv2D(2, 1, name="small")(data)
    large = keras.layers.Conv2D(64, 7, padding="same", name="large")(small)
    path = tmp_path / "m.tflite"
    tflite_export.export(keras.Model(data, large), path, quantization="none")
    latency = tflite_export.benchmark(path, kernels=kernels, per_op=True, runs=10)
    first, second = latency.ops
    assert (first.name, first.output_shape) == ("CONV_2D", (1, 32, 32, 2))
    assert second.macs == 32 * 32 * 64 * 49 * 2
    assert second.median_ms > 5 * first.median_ms > 0
    # Run alone, the op that does nearly all of the work takes about as long.
    assert 0.3 < second.median_ms / latency.median_ms < 3
    assert "ms alone" in str(latency)
    assert "small" in str(latency)


def test_a_loop_has_no_time_of_its_own(tmp_path):
    model = keras.Sequential([keras.Input((7, 5)), keras.layers.LSTM(3)])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    latency = tflite_export.benchmark(path, per_op=True, runs=2)
    times = {row.name: row.median_ms for row in latency.ops}
    assert times["WHILE"] is None
    assert times["RESHAPE"] > 0
    assert len(latency.ops) == 3
    assert "WHILE" in str(latency)


def test_ops_are_timed_only_when_asked_for(float_file):
    assert tflite_export.benchmark(float_file, runs=1).ops is None


def test_an_op_that_ends_the_process_is_an_error(float_file, tmp_path, monkeypatch):
    script = tmp_path / "die.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr(benchmark, "_SCRIPT", str(script))
    with pytest.raises(ValueError, match=r"one by one \(the process died with"):
        tflite_export.benchmark(float_file, per_op=True)
