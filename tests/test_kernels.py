"""Which kernels are found, and what is said of the layers left alone."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
from keras_compress.kernels import find_kernels


def model_of(layer, shape):
    x = keras.Input(shape)
    return keras.Model(x, layer(x), name="m")


def names(model, chosen=None):
    kernels, skipped = find_kernels(model, chosen)
    return [kernel.path for kernel in kernels], {s.name: s.reason for s in skipped}


@pytest.mark.parametrize(
    ("layer", "shape", "kernels"),
    [
        (layers.Dense(3, name="x"), (4,), ["x/kernel"]),
        (layers.Conv1D(3, 2, name="x"), (8, 4), ["x/kernel"]),
        (layers.Conv2D(3, 2, name="x"), (8, 8, 4), ["x/kernel"]),
        (layers.Conv3D(3, 2, name="x"), (8, 8, 8, 4), ["x/kernel"]),
        (layers.Conv2D(4, 2, groups=2, name="x"), (8, 8, 4), ["x/kernel"]),
        (layers.DepthwiseConv1D(2, name="x"), (8, 4), ["x/kernel"]),
        (layers.DepthwiseConv2D(2, name="x"), (8, 8, 4), ["x/kernel"]),
        (
            layers.SeparableConv2D(3, 2, name="x"),
            (8, 8, 4),
            ["x/depthwise_kernel", "x/pointwise_kernel"],
        ),
        (layers.Conv2DTranspose(3, 2, name="x"), (8, 8, 4), ["x/kernel"]),
        (layers.Conv3DTranspose(3, 2, name="x"), (8, 8, 8, 4), ["x/kernel"]),
        (layers.EinsumDense("ab,bc->ac", 3, name="x"), (4,), ["x/kernel"]),
        (
            layers.TimeDistributed(layers.Dense(2, name="y"), name="x"),
            (3, 4),
            ["x/y/kernel"],
        ),
    ],
)
def test_every_kernel_is_found(layer, shape, kernels):
    assert names(model_of(layer, shape)) == (kernels, {})


def test_the_projections_of_attention_are_found():
    x = keras.Input((5, 8))
    attention = layers.MultiHeadAttention(2, 4, name="mha")
    kernels, _ = names(keras.Model(x, attention(x, x)))
    parts = ("query", "key", "value", "attention_output")
    assert kernels == [f"mha/{part}/kernel" for part in parts]


RECURRENT = {
    "lstm": (lambda: layers.LSTM(3, name="x"), ["x/lstm_cell/{}"]),
    "gru": (lambda: layers.GRU(3, name="x"), ["x/gru_cell/{}"]),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(3, name="x"), name="b"),
        ["b/forward_x/lstm_cell/{}", "b/backward_x/lstm_cell/{}"],
    ),
}


@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_kernels_are_pruned_where_they_are_chosen(kind):
    make, paths = RECURRENT[kind]
    kernels, skipped = names(model_of(make(), (5, 4)))
    assert kernels == []
    assert set(skipped.values()) == {"only pruned where `layers` chooses it"}
    kernels, _ = names(
        model_of(make(), (5, 4)), lambda layer: isinstance(layer, layers.RNN)
    )
    both = ("kernel", "recurrent_kernel")
    assert kernels == [path.format(name) for path in paths for name in both]


def test_embeddings_are_pruned_where_they_are_chosen():
    model = model_of(layers.Embedding(9, 4, name="x"), (5,))
    assert names(model)[1] == {"x": "only pruned where `layers` chooses it"}
    assert names(model, lambda layer: True)[0] == ["x/embeddings"]


def test_each_layer_left_alone_is_named_once_with_the_reason():
    body = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="old")], name="body"
    )
    body.trainable = False
    model = keras.Sequential(
        [
            keras.Input((4,)),
            body,
            layers.BatchNormalization(name="norm"),
            layers.Dense(3, name="new"),
            layers.Dense(2, name="last"),
        ]
    )
    kernels, skipped = names(model)
    assert [path.split("/")[-2] for path in kernels] == ["new", "last"]
    reasons = {name.split("/")[-1]: reason for name, reason in skipped.items()}
    assert reasons == {"old": "frozen", "norm": "has no kernel"}
    _, skipped = names(model, lambda layer: layer.name == "last")
    [reason] = [text for name, text in skipped.items() if name.endswith("new")]
    assert reason == "not chosen by `layers`"


def test_a_layer_of_an_unknown_kind_with_a_kernel_is_found():
    class Mine(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 3), name="kernel")
            self.inner = layers.Dense(2, name="inner")
            self.inner.build((None, 3))

        def call(self, x):
            return self.inner(x @ self.w)

    kernels, _ = names(model_of(Mine(name="mine"), (4,)))
    assert len(kernels) == 2


def test_a_shared_layer_counts_once():
    x = keras.Input((4,))
    dense = layers.Dense(4, name="shared")
    kernels, _ = names(keras.Model(x, dense(dense(x))))
    assert kernels == ["shared/kernel"]


def fit(model, *arguments, **options):
    model.compile("sgd", "mse")
    x = np.ones((8, *model.input_shape[1:]))
    y = np.ones((8, *model.output_shape[1:]))
    callbacks = [kc.MagnitudePruning(*arguments, **options)]
    model.fit(x, y, verbose=0, callbacks=callbacks)


def test_a_model_without_kernels_is_refused():
    with pytest.raises(ValueError, match=r"'m' has no kernel to prune.*norm: has no"):
        fit(model_of(layers.BatchNormalization(name="norm"), (4,)), 0.5)
    model = model_of(layers.Dense(2, name="x"), (4,))
    with pytest.raises(ValueError, match=r"x: not chosen by `layers`"):
        fit(model, 0.5, layers=lambda layer: False)
    with pytest.raises(ValueError, match="has no kernel to count zeros in"):
        kc.sparsity(model_of(layers.ReLU(), (4,)))


def test_a_frozen_layer_is_refused_where_it_is_chosen():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
    )
    model.layers[0].trainable = False
    with pytest.raises(ValueError, match=r"chooses layer 'a'.*trainable=False"):
        fit(model, 0.5, layers=lambda layer: True)
    model.layers[1].trainable = False
    with pytest.raises(ValueError, match=r"a: frozen; .*b: frozen"):
        fit(model, 0.5)


def test_keep_needs_zeros():
    with pytest.raises(ValueError, match=r'"keep".*needs a model with zeros'):
        fit(model_of(layers.Dense(2), (4,)), "keep")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "net"}, "`scope` must be"),
        ({"layers": ["dense"]}, "`layers` must be a function"),
        ({"criterion": "size"}, "`criterion` must be one of 'magnitude', 'taylor'"),
        ({"max_layer_sparsity": 0.9}, "`max_layer_sparsity` needs scope"),
        ({"scope": "model", "max_layer_sparsity": 0.4}, "not above it.*0.5"),
    ],
)
def test_other_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        kc.MagnitudePruning(0.5, **options)
