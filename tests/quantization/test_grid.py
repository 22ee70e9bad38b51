"""Kernels on the integer grid, against NumPy, TFMOT and what the file holds."""

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
import tflite_export
from keras_compress.quantization.grid import on_grid, straight_through, weight_scale
from keras_compress.quantization.wrapper import QuantizeWrapper
from keras_compress.tfmot import import_tfmot
from tflite_export.flatbuffer import listed, op_name, read_model, shape_of

IMAGE, STEPS = (6, 6, 3), (6, 3)
# Layer, shape of its input, axes of its kernel that count output channels.
LAYERS = {
    "dense": (lambda: layers.Dense(4), (5,), [1]),
    "dense_on_images": (lambda: layers.Dense(4), IMAGE, [1]),
    "einsum": (lambda: layers.EinsumDense("abc,cd->abd", (None, 4)), STEPS, [1]),
    "einsum_heads": (
        lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4)),
        STEPS,
        [1, 2],
    ),
    "einsum_any_rank": (
        lambda: layers.EinsumDense("...x,xy->...y", 4),
        STEPS,
        [1],
    ),
    "conv1d": (lambda: layers.Conv1D(4, 3), STEPS, [2]),
    "conv2d": (lambda: layers.Conv2D(4, 3), IMAGE, [3]),
    "grouped": (lambda: layers.Conv2D(6, 3, groups=3), IMAGE, [3]),
    "depthwise1d": (
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
        STEPS,
        [1, 2],
    ),
    "depthwise2d": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        IMAGE,
        [2, 3],
    ),
    "transposed1d": (lambda: layers.Conv1DTranspose(4, 3, strides=2), STEPS, [1]),
    "transposed2d": (lambda: layers.Conv2DTranspose(4, 3, strides=2), IMAGE, [2]),
}


def channel_steps(kernel, channels, bits):
    """The integers of the kernel and the scale of each, channel by channel."""
    rows = np.moveaxis(kernel, channels, range(len(channels)))
    shape = rows.shape
    rows = rows.reshape(np.prod(shape[: len(channels)], dtype=int), -1)
    codes, scales = np.zeros_like(rows), np.ones_like(rows)
    for index, row in enumerate(rows):
        if row.any():
            scales[index] = np.abs(row).max() / np.float32(2 ** (bits - 1) - 1)
            codes[index] = np.round(row / scales[index])
    return [
        np.moveaxis(found.reshape(shape), range(len(channels)), channels)
        for found in (codes, scales)
    ]


def rounded(kernel, channels, bits):
    """The kernel on the grid of `bits`, and then on that of int8."""
    codes, scales = channel_steps(kernel, channels, bits)
    values = (codes * scales).astype("float32")
    return values if bits == 8 else rounded(values, channels, 8)


def wrapped(name, bits=8):
    """The layer in its wrapper, with channels of unlike size and one of zeros."""
    make, shape, channels = LAYERS[name]
    wrapper = QuantizeWrapper(make(), weight_bits=bits)
    wrapper.build((None, *shape))
    [(kernel, _)] = wrapper.kernels()
    random = np.random.default_rng(0)
    size = [n if axis in channels else 1 for axis, n in enumerate(kernel.shape)]
    values = random.normal(size=kernel.shape) * random.uniform(0.01, 10, size)
    first = [0 if axis in channels else slice(None) for axis in range(values.ndim)]
    values[tuple(first)] = 0
    kernel.assign(values)
    return wrapper, kernel, channels


def data(name):
    return np.random.default_rng(1).normal(size=(4, *LAYERS[name][1])).astype("float32")


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_with_the_kernel_that_numpy_rounds(name):
    for bits in range(2, 9):
        wrapper, kernel, channels = wrapped(name, bits)
        codes, _ = channel_steps(kernel.numpy(), channels, bits)
        assert np.abs(codes).max() == 2 ** (bits - 1) - 1
        found = wrapper(data(name)).numpy()
        kernel.assign(rounded(kernel.numpy(), channels, bits))
        expected = wrapper.layer(data(name)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_rounding_again_changes_nothing(name):
    wrapper, kernel, _ = wrapped(name)
    [(_, axes)] = wrapper.kernels()
    for bits in range(2, 9):
        once = on_grid(kernel, axes, bits)
        np.testing.assert_allclose(on_grid(once, axes, bits), once, rtol=1e-6)
        scales = [weight_scale(weights, axes, bits) for weights in (once, kernel)]
        np.testing.assert_allclose(*scales, rtol=1e-6)


def test_a_tie_goes_to_the_even_integer():
    kernel = np.array([[127.0], [0.5], [1.5], [2.5], [-0.5], [-1.5]], "float32")
    expected = [[127], [0], [2], [2], [0], [-2]]
    np.testing.assert_array_equal(on_grid(kernel, (0,)), expected)


def test_a_channel_of_zeros_stays_zero_with_a_finite_gradient():
    kernel = tf.Variable([[0.0, 1.0], [0.0, -3.0]])
    with tf.GradientTape() as tape:
        rounded = straight_through(kernel, (0,))
        loss = tf.reduce_sum(rounded * [[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(rounded[:, 0], [0, 0])
    np.testing.assert_array_equal(tape.gradient(loss, kernel), [[1, 2], [3, 4]])


@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_is_the_plain_layers_at_the_rounded_kernel(name):
    wrapper, kernel, channels = wrapped(name)
    x = tf.constant(data(name))

    def gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 2)
        return tape.gradient(loss, [kernel.value, x])

    found = gradients(wrapper)
    codes, scales = channel_steps(kernel.numpy(), channels, 8)
    kernel.assign(codes * scales)
    for a, b in zip(found, gradients(wrapper.layer), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("bits", [4, 8])
def test_convolutions_are_rounded_as_tfmot_rounds_them(bits):
    import_tfmot()
    quant_ops = importlib.import_module(
        "tensorflow_model_optimization.python.core.quantization.keras.quant_ops"
    )
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 8)).astype("float32")
    expected = quant_ops.LastValueQuantize(
        tf.constant(kernel),
        tf.Variable(tf.zeros(8)),
        tf.Variable(tf.zeros(8)),
        per_channel=True,
        num_bits=bits,
        narrow_range=True,
        symmetric=True,
    )
    # Below 8 bits ours lie on the int8 grid as well, half a step of it away at most.
    step = np.asarray(weight_scale(kernel, (0, 1, 2)))
    distance = np.abs(on_grid(kernel, (0, 1, 2), bits) - expected) / step
    assert distance.max() <= (1e-3 if bits == 8 else 0.501)


def norm():
    layer = layers.BatchNormalization()
    layer.build((None, 4, 4, 4))
    gamma_beta = [[-1.5, 0.3, 2, 1], [0.1, -1, 0, 2]]
    layer.set_weights(np.array([*gamma_beta, [1, 0, -1, 3], [0.2, 1.5, 1, 9]]))
    return layer


# Op of the file, its layer, a BatchNormalization after it or none, how the file orders
# the axes of the kernel, and which of them count output channels in Keras.
FILES = {
    "dense": ("FULLY_CONNECTED", layers.Dense(4), None, (1, 0), [1]),
    "conv": ("CONV_2D", layers.Conv2D(4, 3), None, (3, 0, 1, 2), [3]),
    "folded": ("CONV_2D", layers.Conv2D(4, 3), norm, (3, 0, 1, 2), [3]),
    "depthwise": (
        "DEPTHWISE_CONV_2D",
        layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False),
        norm,
        (0, 1, 2, 3),
        [2, 3],
    ),
    "transposed": (
        "TRANSPOSE_CONV",
        layers.Conv2DTranspose(4, 3),
        None,
        (2, 0, 1, 3),
        [2],
    ),
}


def kernel_of(path, name):
    """(integers, scales, channel axis) of the kernel of the file's one op `name`."""
    model = read_model(path)
    graph = model.subgraphs[0]
    [operator] = [o for o in graph.operators if op_name(model, o) == name]
    tensor = graph.tensors[listed(operator.inputs)[1]]
    integers = np.frombuffer(bytes(model.buffers[tensor.buffer].data), "int8")
    found = tensor.quantization
    assert not np.any(found.zeroPoint)
    return integers.reshape(shape_of(tensor)), found.scale, found.quantizedDimension


def folded(name, layer, norm):
    """(integers, scales) of the layer's kernel with the BatchNormalization in it."""
    codes, scales = channel_steps(layer.get_weights()[0], FILES[name][4], 8)
    if norm is None:
        return codes, scales
    gamma, _, _, variance = norm.get_weights()
    factor = gamma / np.sqrt(variance + norm.epsilon)
    if name == "depthwise":
        factor = factor.reshape(2, 2)
    return codes * np.sign(factor), scales * np.abs(factor)


@pytest.mark.parametrize("name", FILES)
def test_the_file_holds_the_integers_that_the_model_trains_with(name, tmp_path):
    op, layer, make_norm, order, _ = FILES[name]
    layer = type(layer).from_config(layer.get_config())
    norms = [] if make_norm is None else [make_norm()]
    shape = {"dense": (5,), "depthwise": (6, 6, 2)}.get(name, IMAGE)
    model = keras.Sequential([keras.Input(shape), layer, *norms, layers.ReLU()])
    x = np.random.default_rng(0).normal(size=(50, *shape)).astype("float32")
    aware = kc.quantize_aware(model, calibration_data=x)
    tflite_export.export(aware, tmp_path / "m.tflite")
    integers, file_scales, axis = kernel_of(tmp_path / "m.tflite", op)
    codes, scales = (
        np.moveaxis(v.transpose(order).reshape(integers.shape), axis, 0).reshape(4, -1)
        for v in folded(name, layer, *(norms or [None]))
    )
    found = np.moveaxis(integers, axis, 0).reshape(4, -1)
    np.testing.assert_array_equal(found, codes)
    np.testing.assert_allclose(file_scales, scales[:, 0], rtol=1e-5)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_file_holds_a_narrow_kernel_as_it_was_trained(bits, tmp_path):
    model = keras.Sequential([keras.Input((50,)), layers.Dense(4)])
    x = np.random.default_rng(0).normal(size=(50, 50)).astype("float32")
    aware = kc.quantize_aware(model, calibration_data=x, weight_bits=bits)
    path = tmp_path / "m.tflite"
    tflite_export.export(aware, path)
    integers, file_scales, _ = kernel_of(path, "FULLY_CONNECTED")
    assert [len(np.unique(row)) for row in integers] == [2**bits - 1] * 4
    held = integers * np.array(file_scales, "float32")[:, None]
    expected = rounded(model.get_weights()[0], [1], bits)
    np.testing.assert_allclose(held, expected.T, rtol=1e-5)
