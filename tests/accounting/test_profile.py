"""Parameters, non-zeros and MACs by hand, and MACs as the exported file has them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_compress as kc
import tflite_export


def small(x):
    y = layers.Conv2D(4, 3, strides=2, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    return layers.Dense(5, name="dense")(layers.Flatten()(y))


def convolutions(x):
    y = layers.Conv2D(8, 3, padding="same", dilation_rate=2, activation="relu")(x)
    y = layers.Conv2D(12, 3, groups=4)(y)
    y = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(y)
    y = layers.SeparableConv2D(6, 2)(y)
    y = layers.Conv2DTranspose(3, 3, strides=2, padding="same")(y)
    return layers.Dense(4)(layers.Flatten()(y))


def shared(x):
    conv = layers.Conv2D(3, 3, padding="same")
    return layers.Dense(2)(layers.GlobalAveragePooling2D()(conv(conv(x))))


def sequence(x):
    y = layers.Conv1D(6, 3)(layers.Reshape((64, 3))(x))
    y = layers.SeparableConv1D(8, 3)(y)
    y = y + layers.MultiHeadAttention(2, 4, value_dim=3)(y, y)
    y = layers.EinsumDense("abc,cd->abd", output_shape=(60, 5))(y)
    return layers.Dense(2)(ops.matmul(ops.transpose(y, (0, 2, 1)), y))


def build(net):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, net(inputs))


def test_a_small_net_by_hand():
    model = build(small)
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 0] = 0
    model.get_layer("conv").kernel.assign(kernel)
    found = kc.profile(model)
    conv, norm, dense = found.layers
    assert (conv.name, conv.params, conv.macs) == ("conv", 112, 3 * 3 * 4 * 27)
    # The bias starts at zero; one of four channels was set to zero.
    assert conv.nonzero == 81
    assert (norm.params, norm.nonzero, norm.macs) == (16, 8, 0)
    assert (dense.params, dense.macs) == (36 * 5 + 5, 36 * 5)
    assert found.params == model.count_params() == 313
    assert found.bytes == 4 * 313
    assert found.macs == 972 + 180
    assert "total" in str(found) and "1,152" in str(found)


@pytest.mark.parametrize("net", [small, convolutions, shared, sequence])
def test_the_file_has_as_many_multiply_accumulates(net, tmp_path):
    model = build(net)
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    assert kc.profile(model).macs == tflite_export.inspect(path).macs > 0


def test_recurrent_layers_by_hand():
    x = keras.Input((7, 5))
    y = layers.LSTM(3, return_sequences=True)(x)
    y = layers.Bidirectional(layers.GRU(2, return_sequences=True))(y)
    y = layers.TimeDistributed(layers.Dense(6))(y)
    lstm, both, dense = kc.profile(keras.Model(x, layers.SimpleRNN(4)(y))).layers[:3]
    assert lstm.macs == 7 * 4 * 3 * (5 + 3)
    assert both.macs == 2 * 7 * 3 * 2 * (3 + 2)
    assert dense.macs == 7 * 4 * 6


def test_open_dimensions_leave_the_macs_open_until_a_size_is_given():
    x = keras.Input((None, None, 3))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, padding="same")(x))
    model = keras.Model(x, layers.Dense(2)(y))
    assert kc.profile(model).macs is None
    assert "open" in str(kc.profile(model))
    assert kc.profile(model, open_size=10).macs == 100 * 27 * 4 + 8


def test_a_nested_model_has_the_shapes_of_the_outer_one():
    inner = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(4, 3)])
    x = keras.Input((6, 6, 3))
    assert kc.profile(keras.Model(x, inner(x))).macs == 16 * 27 * 4


def test_quantization_aware_layers_count_as_what_they_wrap():
    model = build(convolutions)
    assert kc.profile(kc.quantize_aware(model)).macs == kc.profile(model).macs


def test_a_subclassed_model_is_an_error():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional API"):
        kc.profile(Own())
