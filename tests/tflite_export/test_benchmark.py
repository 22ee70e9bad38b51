import pytest

import tflite_export


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
