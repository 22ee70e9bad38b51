import gzip
import json
import time

import keras
import numpy as np
import pytest

import tflite_export
from tflite_export.inspect import layer_name


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
    assert conv.weight_scales == kernel.scale
    assert conv.layer == "conv"


def test_the_last_layer_is_named_although_the_converter_renames_outputs(tmp_path):
    layers = [keras.layers.Dense(5, name="hidden"), keras.layers.Dense(3, name="last")]
    for quantization in ("none", "int8"):
        model = keras.Sequential([keras.Input((7,)), *layers])
        options = {"quantization": quantization}
        if quantization == "int8":
            options["representative_data"] = np.ones((8, 7), "float32")
        tflite_export.export(model, tmp_path / "m.tflite", **options)
        profile = tflite_export.inspect(tmp_path / "m.tflite")
        rows = [op for op in profile.ops if op.macs]
        assert not rows[-1].tensor.count("last")
        assert [row.layer for row in rows] == ["hidden", "last"]


def test_the_table_ends_with_the_totals(int8_file, float_file):
    text = str(tflite_export.inspect(int8_file))
    macs = 36 * 4 * 27 + 144 * 5
    assert f"0 in float, {macs:,} MACs" in text
    assert "1x6x6x4" in text
    profile = tflite_export.inspect(float_file)
    assert len(profile.float_ops) == len(profile.ops)


def test_an_op_has_the_scales_of_its_tensors(int8_file, x):
    profile = tflite_export.inspect(int8_file)
    quantise, conv, *_, last = profile.ops
    # The converter's own range: 255 steps from the lowest to the highest value.
    assert quantise.output_scale == pytest.approx((x.max() - x.min()) / 255, rel=0.01)
    assert quantise.input_scales == (None,)
    assert conv.input_scales == (quantise.output_scale,)
    assert (last.name, last.output_scale) == ("DEQUANTIZE", None)
    # A ReLU output starts at zero, which int8 writes as -128.
    assert conv.output_zero_point == -128


def test_rows_are_plain_values(int8_file):
    profile = tflite_export.inspect(int8_file)
    rows = json.loads(json.dumps(profile.rows()))
    assert [row["name"] for row in rows] == [row.name for row in profile.ops]
    assert sum(row["macs"] for row in rows) == profile.macs
    assert rows[1]["output_shape"] == [1, 6, 6, 4]
    assert len(rows[1]["weight_scales"]) == 4


def test_the_totals_count_a_shared_constant_once(tmp_path):
    layer = keras.layers.Dense(7, use_bias=False)
    data = keras.Input((7,))
    path = tmp_path / "m.tflite"
    tflite_export.export(
        keras.Model(data, layer(layer(data))), path, quantization="none"
    )
    profile = tflite_export.inspect(path)
    assert [row.weight_bytes for row in profile.ops] == [4 * 49, 4 * 49]
    assert profile.weight_bytes == 4 * 49


def test_the_signature_has_names_types_and_sizes(tmp_path):
    data = keras.Input((6,), name="data")
    outputs = [keras.layers.Dense(2, name="zeta")(data)]
    outputs += [keras.layers.Dense(3, name="alpha")(data)]
    path = tmp_path / "m.tflite"
    model = keras.Model(data, outputs)
    tflite_export.export(model, path, quantization="none", batch_size=4)
    signature = tflite_export.inspect(path).signature
    (row,) = signature.inputs
    assert (row.name, row.dtype, row.shape) == ("data", "float32", (4, 6))
    shapes = {row.name: row.shape for row in signature.outputs}
    assert shapes == {"zeta": (4, 2), "alpha": (4, 3)}
    assert "input data: float32 4x6" in str(signature)


def test_an_open_batch_counts_one_example(tmp_path):
    layers = [keras.layers.Conv2D(4, 3)]
    path = tmp_path / "m.tflite"
    profile = _float_profile(layers, (8, 8, 3), path, batch_size=None)
    assert profile.macs == 36 * 4 * 27
    assert profile.signature.inputs[0].shape == (None, 8, 8, 3)
    assert "?x8x8x3" in str(profile)


def test_a_tensor_that_is_two_outputs_has_both_names(tmp_path):
    data = keras.Input((6,))
    scores = keras.layers.Dense(3)(data)
    path = tmp_path / "m.tflite"
    model = keras.Model(data, {"first": scores, "second": scores})
    tflite_export.export(model, path, quantization="none")
    names = [row.name for row in tflite_export.inspect(path).signature.outputs]
    assert sorted(names) == ["first", "second"]


def test_the_table_is_at_most_120_columns_wide(tmp_path):
    name = "a_layer_with_a_name_that_is_much_too_long_for_any_table_of_this_width"
    name += "_and_then_some_more"
    layers = [keras.layers.Conv2D(4, 3, name=name), keras.layers.Conv2D(2, 3)]
    profile = _float_profile(layers, (8, 8, 3), tmp_path / "m.tflite")
    table = str(profile).partition("\n" + profile.path)[0]
    assert max(map(len, table.splitlines())) <= 120
    assert "..." in table
    assert "and_then_some_more" in table


@pytest.mark.parametrize(
    ("tensor", "layer"),
    [
        ("model_1/conv_relu_1/Relu6;model_1/conv_1/convolution", "conv"),
        ("functional_1/conv2d_1_2/convolution1", "conv2d_1"),
        ("model_1/stem_1/Gelu/mul_2;model_1/stem_1/Gelu/mul/x", "stem"),
        ("model/dense/MatMul", "dense"),
        ("StatefulPartitionedCall_1:0", ""),
        ("", ""),
    ],
)
def test_a_tensor_name_tells_of_its_layer(tensor, layer):
    assert layer_name(tensor) == layer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The outputs of these layers are zero")
def test_a_file_of_four_megabytes_is_read_in_half_a_second(tmp_path):
    model = keras.applications.MobileNetV2((96, 96, 3), weights=None)
    data = np.random.default_rng(0).normal(size=(5, 96, 96, 3))
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, representative_data=data)
    assert path.stat().st_size > 3.5e6
    times = []
    for _ in range(3):
        start = time.perf_counter()
        tflite_export.inspect(path)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5


@pytest.mark.parametrize("quantization", ["none", "float16", "dynamic", "int8"])
def test_zeros_of_kernels_are_counted_and_those_of_biases_are_not(
    quantization, tmp_path
):
    """The bias is zero, and a third of one kernel; the other has no zero."""
    layers = [keras.layers.Conv2D(8, 3), keras.layers.Flatten(), keras.layers.Dense(30)]
    model = keras.Sequential([keras.Input((8, 8, 4)), *layers])
    random = np.random.default_rng(0)
    for layer in (layers[0], layers[2]):
        shape = layer.kernel.shape
        layer.kernel.assign(random.choice([-1, 1], shape) * random.uniform(1, 2, shape))
    kernel = layers[2].kernel.numpy()
    kernel[:, :10] = 0
    layers[2].kernel.assign(kernel)
    data = {"representative_data": random.random((10, 8, 8, 4)).astype("float32")}
    path = tmp_path / "m.tflite"
    tflite_export.export(
        model, path, quantization=quantization, **data if quantization == "int8" else {}
    )
    profile = tflite_export.inspect(path)
    weights = 3 * 3 * 4 * 8 + 288 * 30
    counted = [(row.kernel_weights, row.kernel_zeros) for row in profile.ops]
    assert list(filter(any, counted)) == [(288, 0), (8640, 2880)]
    assert profile.sparsity == 2880 / weights
    assert f"{2880 / weights:.1%} of the kernels zero" in str(profile)
