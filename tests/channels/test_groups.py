"""Which channels are coupled, where they lie, and why some are frozen."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_compress as kc

from .nets import build, nested, residual, sliced


def groups(inputs, outputs, **options):
    return kc.channel_groups(keras.Model(inputs, outputs), **options)


def axes(group):
    return {f"{a.layer.name}.{a.variable.name}.{a.axis}": a for a in group.axes}


def free(found):
    return [group for group in found if not group.frozen]


def test_flatten_spreads_a_channel_over_all_positions():
    x = keras.Input((4, 5, 3))
    y = layers.Flatten()(layers.Conv2D(6, 1, name="conv")(x))
    [group] = free(groups(x, layers.Dense(2, name="dense")(y)))
    where = axes(group)["dense.kernel.0"].index
    # Position p of channel c of a (4, 5, 6) tensor is at 6 p + c.
    expected = 6 * np.arange(20)[None] + np.arange(6)[:, None]
    np.testing.assert_array_equal(where, expected)
    assert "dense.kernel axis 0 (in, 20 places each)" in str(group)


def test_a_depth_multiplier_and_a_concatenation_shift_places():
    x = keras.Input((4, 4, 3))
    a, b = layers.Conv2D(2, 1, name="a")(x), layers.Conv2D(3, 1, name="b")(x)
    y = layers.Concatenate()([a, b])
    y = layers.DepthwiseConv2D(1, depth_multiplier=2, name="wise")(y)
    first, second = free(groups(x, layers.Conv2D(2, 1, name="last")(y)))
    assert (first.name, first.size, second.name, second.size) == ("a", 2, "b", 3)
    wise = axes(second)["wise.kernel.2"].index
    np.testing.assert_array_equal(wise, [[2], [3], [4]])
    last = axes(second)["last.kernel.2"].index
    np.testing.assert_array_equal(last, [[4, 5], [6, 7], [8, 9]])


def test_a_grouped_convolution_couples_the_same_channel_of_every_group():
    x = keras.Input((4, 4, 3))
    y = layers.Conv2D(6, 1, name="a")(x)
    y = layers.Conv2D(4, 1, groups=2, name="b")(y)
    first, second = free(groups(x, layers.Conv2D(2, 1)(y)))
    np.testing.assert_array_equal(
        axes(first)["a.kernel.3"].index, [[0, 3], [1, 4], [2, 5]]
    )
    np.testing.assert_array_equal(axes(first)["b.kernel.2"].index, [[0], [1], [2]])
    np.testing.assert_array_equal(axes(second)["b.kernel.3"].index, [[0, 2], [1, 3]])


def test_added_layers_are_one_group_with_their_normalisation():
    model = build(residual)
    [group] = free(kc.channel_groups(model))
    roles = [(type(a.layer).__name__, a.role) for a in group.axes]
    assert sorted(roles) == [
        ("BatchNormalization", "scale"),
        *[("Conv2D", "in"), ("Conv2D", "out"), ("Conv2D", "out")],
        ("Dense", "in"),
    ]


def test_slices_divide_the_channels_of_one_layer_into_groups():
    first, second = free(kc.channel_groups(build(sliced)))
    assert (first.size, second.size) == (4, 5)
    outs = [a.index.ravel().tolist() for g in (first, second) for a in g.axes[:1]]
    assert outs == [[0, 1, 2, 3], [4, 5, 6, 7, 8]]


def test_layers_of_a_nested_model_are_found_and_left_out_by_the_user():
    model = build(nested)
    assert len(free(kc.channel_groups(model))) == 3
    name = free(kc.channel_groups(model))[0].name
    found = kc.channel_groups(model, layers=lambda layer: layer.name != name)
    assert [g.reason for g in found if g.name == name][1:] == ["left out by `layers`"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (lambda y: layers.Lambda(lambda t: t[..., ::-1])(y), "no row for Lambda"),
        (lambda y: layers.Activation("softmax")(y), "softmax over channels"),
        (lambda y: layers.Activation(lambda t: t)(y), "'<lambda>' is unknown"),
        (lambda y: layers.Reshape((6, 6, 4))(y), "mixes channels with positions"),
        (lambda y: ops.mean(y, axis=-1, keepdims=True), "reduces over channels"),
        (lambda y: y[..., ::2], "picks single channels"),
        (lambda y: y + ops.transpose(y, (0, 1, 3, 2)), "on different axes"),
        (lambda y: layers.Dense(4)(layers.Permute((1, 3, 2))(y)), "another axis"),
        (lambda y: ops.flip(y, axis=-1), "mixes channels"),
    ],
)
def test_what_cannot_be_followed_is_frozen_with_a_reason(row, reason):
    x = keras.Input((4, 6, 3))
    y = row(layers.Conv2D(6, 1, name="maker")(x))
    found = groups(x, layers.Conv2D(2, 1)(y))
    [reason_found] = [group.reason for group in found if group.name == "maker"][-1:]
    assert reason in reason_found


def test_a_convolution_with_a_softmax_keeps_its_channels():
    x = keras.Input((4, 4, 3))
    y = layers.Conv2D(6, 1, activation="softmax", name="maker")(x)
    found = groups(x, layers.Conv2D(2, 1)(y))
    assert [g.reason for g in found if g.name == "maker"][-1] == (
        "softmax over channels in maker"
    )


def test_a_class_of_the_user_with_a_known_name_is_frozen():
    class Dense(layers.Dense):
        def call(self, x):
            return super().call(x[..., ::-1])

    x = keras.Input((3,))
    y = Dense(4, name="own")(layers.Dense(8, name="maker")(x))
    found = groups(x, layers.Dense(2)(y))
    [maker] = [g for g in found if g.name == "maker"][1:]
    assert maker.reason == "no row for Dense (own)"


def test_the_printed_group_names_every_axis():
    x = keras.Input((3,))
    y = layers.Dense(8, name="a")(x)
    found = groups(x, layers.Dense(2, name="b")(y))
    assert [str(group) for group in found] == [
        "a: 3 channels, frozen: model input\n  a.kernel axis 0 (in)",
        "a: 8 channels\n  a.kernel axis 1 (out)\n  b.kernel axis 0 (in)",
        "b: 2 channels, frozen: model output\n  b.kernel axis 1 (out)",
    ]


def test_a_subclassed_and_a_quantization_aware_model_are_refused():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional API"):
        kc.channel_groups(Own())
    aware = kc.quantize_aware(build(residual))
    with pytest.raises(ValueError, match="prune first"):
        kc.channel_groups(aware)


def test_channels_first_of_a_tensor_are_followed_on_their_axis():
    first = {"data_format": "channels_first"}
    x = keras.Input((3, 8, 8))
    y = layers.Conv2D(6, 3, name="a", **first)(x)
    y = layers.PReLU(shared_axes=[2, 3])(layers.BatchNormalization(axis=1)(y))
    y = layers.Concatenate(axis=1)([y, layers.MaxPooling2D(1, **first)(y)])
    y = layers.Conv2D(4, 3, name="b", **first)(y)
    flat = layers.Dense(2, name="flat")(layers.Flatten(**first)(y))
    pooled = layers.Dense(2)(layers.GlobalAveragePooling2D(**first)(y))
    model = keras.Model(x, [flat, pooled])
    a, b = free(kc.channel_groups(model))
    expected = np.arange(6)[:, None] + [0, 6]
    np.testing.assert_array_equal(axes(a)["b.kernel.2"].index, expected)
    # Keras' Flatten moves the channels to the end before.
    expected = np.arange(4)[:, None] + 4 * np.arange(16)
    np.testing.assert_array_equal(axes(b)["flat.kernel.0"].index, expected)
    smaller = kc.prune_channels(model, ratio=0.5, round_to=1)
    assert smaller.get_layer("b").kernel.shape == (3, 3, 6, 2)
