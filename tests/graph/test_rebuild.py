"""A rebuilt model computes the same, with weights of its own and the same names."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_compress.graph import read_graph, rebuild

IMAGE, STEPS = (8, 8, 3), (6, 4)


def block(x, units=4, name=None):
    inputs = keras.Input(x.shape[1:])
    y = layers.BatchNormalization()(layers.Conv2D(units, 3, padding="same")(inputs))
    return keras.Model(inputs, layers.ReLU()(y), name=name)


def chain(x):
    return layers.Dense(3)(layers.Flatten()(layers.Conv2D(4, 3)(x)))


def nested(x):
    inner = block(x, 3)
    outer = keras.Sequential([keras.Input(IMAGE), inner, layers.Conv2D(3, 1)])
    return layers.Dense(2)(outer(outer(x)))


def frozen_statistics(x):
    """As in transfer learning: the nested model's BatchNormalization never trains."""
    return layers.Dense(2)(block(x)(x, training=False))


def shared(x):
    conv, norm = layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()
    return norm(conv(norm(conv(x))))


def operators(x):
    y = layers.Conv2D(4, 3, padding="same")(x)
    y = y + 0.5 * ops.relu(y) - y[:, :, :, :1]
    first, second = ops.split(y, 2, axis=-1)
    y = ops.concatenate([second, ops.add(first, np.ones((2,), "float32")), y], -1)
    return ops.mean(y, axis=(1, 2))[:, 1:]


def two_outputs(x):
    y = layers.Conv2D(4, 3)(x)
    return [layers.Dense(2)(y), layers.ReLU()(y)]


def dict_outputs(x):
    y = layers.Flatten()(x)
    return {"score": layers.Dense(2)(y), "age": (layers.Dense(1)(y), y)}


def input_and_one_output_twice(x):
    y = layers.Conv2D(4, 3)(x)
    return [x, y, y]


def inner_tensor_as_output(x):
    inputs = keras.Input(IMAGE)
    y = layers.Conv2D(4, 3)(inputs)
    first, second = keras.Model(inputs, [y, layers.ReLU()(y)])(x)
    return [second, first]


IMAGE_NETS = (
    chain,
    nested,
    frozen_statistics,
    shared,
    operators,
    two_outputs,
    dict_outputs,
    input_and_one_output_twice,
    inner_tensor_as_output,
)


def adapted(x):
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(3).normal(5, 2, (90, *STEPS)))
    return layers.Dense(2)(norm(x))


def states(x):
    y, *state = layers.LSTM(3, return_sequences=True, return_state=True)(x)
    return layers.Bidirectional(layers.GRU(2))(
        layers.LSTM(3, return_sequences=True)(y, initial_state=state)
    )


def attention(x):
    y, scores = layers.MultiHeadAttention(2, 2)(
        x, value=x[:, :3], return_attention_scores=True
    )
    return [y, scores]


def masked(x):
    y = layers.Dense(4)(layers.Masking()(x))
    return layers.GlobalAveragePooling1D()(layers.Dropout(0.5)(y))


SEQUENCE_NETS = (adapted, states, attention, masked)


def copy_of(model):
    """The model rebuilt with every step as it is."""
    return rebuild(
        model,
        read_graph(model),
        lambda builder, step: builder.copy(step),
        lambda builder, ref, tensor: tensor,
    )


def make(net):
    shape = IMAGE if net in IMAGE_NETS else STEPS
    inputs = keras.Input(shape, name="x")
    return settle(keras.Model(inputs, net(inputs))), data(shape)


def data(shape):
    x = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    x[:, -2:] = 0
    return x


def settle(model):
    """Values that no initialiser gives, but for what Normalization has seen."""
    random = np.random.default_rng(1)
    for weight in model.weights:
        if "float" in weight.dtype and weight.name not in ("mean", "variance"):
            weight.assign(weight + random.uniform(0.1, 0.5, weight.shape))
    return model


def assert_equal(new, old):
    keras.tree.assert_same_structure(new, old)
    for a, b in zip(keras.tree.flatten(new), keras.tree.flatten(old), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("net", IMAGE_NETS + SEQUENCE_NETS, ids=lambda n: n.__name__)
def test_a_copy_computes_the_same_with_weights_of_its_own(net):
    model, x = make(net)
    new = copy_of(model)
    assert_equal(new(x), model(x))
    before = keras.tree.map_structure(np.array, model(x))
    for weight in new.weights:
        weight.assign(weight + ops.cast(1, weight.dtype))
    assert_equal(model(x), before)
    assert len(new.weights) == len(model.weights)
    layers_of_both = set(map(id, new._flatten_layers(include_self=False))) & set(
        map(id, model._flatten_layers(include_self=False))
    )
    assert not layers_of_both


@pytest.mark.parametrize("net", (chain, frozen_statistics, masked))
def test_a_copy_trains_as_the_model_does(net):
    model, x = make(net)
    new = copy_of(model)
    assert_equal(new(x, training=True), model(x, training=True))
    for a, b in zip(new.weights, model.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_inputs_keep_their_structure_names_and_dtypes():
    first = keras.Input((2,), name="zeta")
    second = keras.Input((2,), dtype="int32", batch_size=3, name="alpha")
    y = layers.Dense(2)(first) + ops.cast(second, "float32")
    new = copy_of(keras.Model({"zeta": first, "alpha": second}, y))
    assert {key: tensor.name for key, tensor in new.input.items()} == {
        "zeta": "zeta",
        "alpha": "alpha",
    }
    assert new.input["alpha"].shape == (3, 2)
    assert new.input["alpha"].dtype == "int32"


def test_two_inputs_are_not_exchanged():
    first, second = keras.Input((2,), name="zeta"), keras.Input((2,), name="alpha")
    new = copy_of(keras.Model([first, second], first - second))
    np.testing.assert_array_equal(new([np.ones((1, 2)), np.zeros((1, 2))]), [[1, 1]])


def test_a_sequential_model_that_was_never_called_is_copied():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)], name="small")
    new = copy_of(model)
    assert new.name == "small"
    x = np.ones((1, 3), "float32")
    assert_equal(new(x), model(x))


def test_layers_keep_their_names_and_those_of_nested_models_stay_apart():
    inputs = keras.Input((4,))
    parts = [
        keras.Sequential([keras.Input((4,)), layers.Dense(4, name="dense")], name=name)
        for name in ("left", "right", "far")
    ]
    x = layers.Dense(4, name="far_dense")(inputs)
    for part in parts:
        x = part(x)
    new = copy_of(keras.Model(inputs, layers.Dense(1, name="score")(x)))
    assert [layer.name for layer in new.layers[1:]] == [
        "far_dense",
        "dense",
        "right_dense",
        "dense_2",
        "score",
    ]


def test_frozen_layers_stay_frozen():
    inputs = keras.Input(IMAGE)
    inner = block(inputs, name="body")
    inner.trainable = False
    model = keras.Model(inputs, layers.Dense(2)(inner(inputs)))
    new = copy_of(model)
    names = [v.path for v in model.trainable_variables]
    assert [v.path for v in new.trainable_variables] == names
    assert len(names) == 2


def test_the_given_model_is_left_as_it_was():
    model, x = make(nested)
    model.compile("adam", "mse")
    model.fit(x, np.zeros((4, 8, 8, 2)), verbose=0)
    state = snapshot(model)
    new = copy_of(model)
    new.fit(x, np.ones((4, 8, 8, 2)), verbose=0)
    assert snapshot(model) == state


def snapshot(model):
    """All that a model is: its parts, their attributes and every number in it."""
    parts = list(model._flatten_layers())
    variables = [*model.variables, *model.optimizer.variables]
    return (
        model.to_json(),
        str(model.get_compile_config()),
        [sorted(set(vars(part)) - {"_losses"}) for part in parts],
        [id(part) for part in parts],
        [np.array(v).tobytes() for v in variables],
        id(model.optimizer),
        id(model.train_function),
    )


@keras.saving.register_keras_serializable(package="test")
class Forgetful(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def call(self, x):
        return x


def test_a_layer_without_get_config_is_refused_by_name():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, Forgetful(object(), name="odd")(inputs))
    with pytest.raises(ValueError, match=r"'odd' \(Forgetful\) .* `get_config\(\)`"):
        copy_of(model)


def test_a_lambda_layer_is_copied():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layers.Lambda(lambda x: x * 2)(inputs))
    x = np.ones((1, 2), "float32")
    assert_equal(copy_of(model)(x), model(x))
