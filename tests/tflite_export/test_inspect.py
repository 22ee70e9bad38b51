import gzip
import math

import keras
import numpy as np
import pytest

import tflite_export


def _float_profile(layers, shape, path, **options):
    model = keras.Sequential([keras.Input(shape), *layers])
    tflite_export.export(model, path, quantization="none", **options)
    return tflite_export.inspect(path)


@pytest.mark.parametrize(
    ("layer", "shape", "op", "macs"),
    [
        (keras.layers.Conv2D(4, 3), (8, 8, 3), "CONV_2D", 6 * 6 * 4 * 9 * 3),
        (
            keras.layers.Conv2D(4, 3, groups=2),
            (8, 8, 6),
            "CONV_2D",
            6 * 6 * 4 * 9 * 3,
        ),
        (
            keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
            (8, 8, 3),
            "DEPTHWISE_CONV_2D",
            6 * 6 * 6 * 9,
        ),
        (keras.layers.Dense(5), (7,), "FULLY_CONNECTED", 35),
        (
            keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
            (5, 5, 2),
            "TRANSPOSE_CONV",
            25 * 2 * 9 * 4,
        ),
        (
            keras.layers.Conv3D(4, 3),
            (5, 5, 5, 2),
            "CONV_3D",
            27 * 4 * 27 * 2,
        ),
    ],
)
def test_macs_are_those_worked_out_by_hand(layer, shape, op, macs, tmp_path):
    profile = _float_profile([layer], shape, tmp_path / "m.tflite")
    assert sum(row.macs for row in profile.ops if row.name == op) == macs
    assert profile.macs == macs


def test_a_product_of_two_tensors_counts_its_inner_axis(tmp_path):
    left, right = keras.Input((4, 6), name="a"), keras.Input((6, 5), name="b")
    model = keras.Model([left, right], keras.ops.matmul(left, right))
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=3)
    (row,) = [r for r in tflite_export.inspect(path).ops if r.name == "BATCH_MATMUL"]
    assert row.macs == 3 * 4 * 5 * 6


def test_macs_include_the_batch(tmp_path):
    layers = [keras.layers.Dense(5)]
    assert _float_profile(layers, (7,), tmp_path / "m.tflite", batch_size=8).macs == 280


def test_the_profile_counts_bytes_weights_and_quantised_tensors(model, int8_file):
    profile = tflite_export.inspect(int8_file)
    content = int8_file.read_bytes()
    assert profile.bytes == len(content)
    assert len(gzip.decompress(gzip.compress(content))) == profile.bytes
    assert profile.gzip_bytes == len(gzip.compress(content, mtime=0))
    (conv,) = [row for row in profile.ops if row.name == "CONV_2D"]
    assert conv.weight_bytes == 4 * 27 + 4 * 4  # int8 kernel, int32 bias
    assert conv.input_dtypes == ("int8", "int8", "int32")
    assert conv.output_shape == (1, 6, 6, 4)
    (kernel,) = [t for t in profile.tensors if t.shape == (4, 3, 3, 3)]
    largest = np.abs(np.asarray(model.get_layer("conv").kernel)).max(axis=(0, 1, 2))
    np.testing.assert_allclose(kernel.scale, largest / 127, rtol=1e-4)
    assert kernel.zero_point == (0, 0, 0, 0)


def test_the_table_ends_with_the_totals(int8_file, float_file):
    text = str(tflite_export.inspect(int8_file))
    macs = 36 * 4 * 27 + 144 * 5
    assert f"0 in float, {macs:,} MACs" in text
    assert "1x6x6x4" in text
    profile = tflite_export.inspect(float_file)
    assert len(profile.float_ops) == len(profile.ops)


@pytest.mark.slow
def test_mobilenet_v2_has_300_8_million_macs(tmp_path):
    model = keras.applications.MobileNetV2(weights=None)
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    assert math.isclose(tflite_export.inspect(path).macs / 1e6, 300.8, abs_tol=0.05)
