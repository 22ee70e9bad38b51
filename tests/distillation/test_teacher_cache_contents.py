"""What is kept of each output: dtypes, features, the largest entries."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc

from .teacher_cache_net import CLASSES, build, by_hand, examples, net


@pytest.fixture
def teacher():
    return net()


@pytest.fixture
def x():
    return examples()


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_features_are_kept_by_the_name_of_their_layer(teacher, x, tmp_path):
    layers = ["hidden", "scores"]
    path = tmp_path / "c.h5"
    build(teacher, x, path, dtype="float32", feature_layers=layers, shard_examples=30)
    cache = kc.TeacherCache(path, teacher=teacher)
    hidden, scores = by_hand(teacher, x)
    features = cache.look_up_features(x[5:9])
    np.testing.assert_allclose(features["hidden"], hidden[5:9], atol=1e-6)
    np.testing.assert_allclose(features["scores"], scores[5:9], atol=1e-5)
    assert cache.feature_shapes == {"hidden": (6,), "scores": (CLASSES,)}
    in_graph = tf.function(cache.look_up_features_in_graph)(x[5:9])
    np.testing.assert_array_equal(in_graph["hidden"], features["hidden"])
    np.testing.assert_allclose(cache.look_up(x), scores, atol=1e-5)


def test_top_k_keeps_the_probabilities_of_the_likeliest_classes(teacher, x, tmp_path):
    cache = build(teacher, x, tmp_path / "c.h5", dtype="float32", top_k=3)
    _, scores = by_hand(teacher, x)
    found, wanted = cache.look_up(x), softmax(scores)
    kept = np.argsort(scores, -1)[:, -3:]
    np.testing.assert_allclose(
        np.take_along_axis(softmax(found), kept, -1),
        np.take_along_axis(wanted, kept, -1),
        atol=1e-5,
    )
    others = np.argsort(scores, -1)[:, :-3]
    rest = np.take_along_axis(found, others, -1)
    np.testing.assert_array_equal(rest, np.repeat(rest[:, :1], CLASSES - 3, 1))
    assert (rest[:, 0] <= np.sort(scores, -1)[:, -3]).all()
    softened, wanted = (
        np.take_along_axis(softmax(z / 4), others, -1).sum(-1) for z in (found, scores)
    )
    assert (softened > wanted).all()
    assert cache.output_shape == (CLASSES,)


def test_top_k_of_probabilities_adds_up_to_one(teacher, x, tmp_path):
    probabilities = keras.Sequential([teacher, keras.layers.Softmax()])
    options = {"dtype": "float32", "top_k": 2, "shard_examples": 30}
    cache = build(probabilities, x, tmp_path / "c", **options)
    wanted, found = np.sort(softmax(by_hand(teacher, x)[1])), np.sort(cache.look_up(x))
    np.testing.assert_allclose(found[:, -2:], wanted[:, -2:], atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    assert cache.ends_in == ["softmax"]
    assert build(teacher, x, tmp_path / "logits.h5").ends_in == ["unknown"]


def test_bfloat16_is_rounded_as_tensorflow_rounds(teacher, x, tmp_path):
    cache = build(teacher, x, tmp_path / "c.h5", dtype="bfloat16")
    exact = build(teacher, x, tmp_path / "exact.h5", dtype="float32").look_up(x)
    rounded = tf.cast(tf.cast(exact, tf.bfloat16), tf.float32)
    np.testing.assert_array_equal(cache.look_up(x), rounded)


def test_bfloat16_holds_what_float16_cannot(teacher, x, tmp_path):
    large = keras.Sequential([teacher, keras.layers.Rescaling(1e6)])
    with pytest.raises(ValueError, match="not finite in float16"):
        build(large, x, tmp_path / "c.h5")
    cache = build(large, x, tmp_path / "c.h5", dtype="bfloat16")
    np.testing.assert_allclose(cache.look_up(x), 1e6 * by_hand(teacher, x)[1], 0.01)


@pytest.mark.parametrize("structure", ["dict", "list"])
def test_several_outputs_come_back_as_the_teacher_gives_them(x, tmp_path, structure):
    inputs = keras.Input((4,))
    a, b = keras.layers.Dense(3)(inputs), keras.layers.Dense(2)(inputs)
    outputs = {"b": b, "a": a} if structure == "dict" else [b, a]
    teacher = keras.Model(inputs, outputs)
    cache = build(teacher, x, tmp_path / "c", dtype="float32", shard_examples=30)
    wanted, found = teacher.predict(x, verbose=0), cache.look_up(x)
    in_graph = tf.function(cache.look_up_in_graph)(x)
    for given in (found, in_graph):
        keras.tree.assert_same_structure(given, wanted)
        keras.tree.map_structure(
            lambda f, w: np.testing.assert_allclose(f, w, atol=1e-6), given, wanted
        )
    shapes = {"dict": {"a": (3,), "b": (2,)}, "list": [(2,), (3,)]}
    assert cache.output_shape == shapes[structure]


def test_a_look_up_reads_its_rows_and_no_more(tmp_path):
    wide = keras.Sequential([keras.Input((1,)), keras.layers.Dense(10_000)])
    x = np.arange(1000, dtype="float32")[:, None] / 1000
    path = tmp_path / "c"
    build(wide, x, path, dtype="float32", shard_examples=100)
    wide_outputs = 1000 * 10_000 * 4
    rows = x[::100]
    tracemalloc.start()
    try:
        cache = kc.TeacherCache(path)
        found = cache.look_up(rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < wide_outputs / 10
    np.testing.assert_allclose(found, rows @ wide.get_weights()[0], atol=1e-6)


class Subclassed(keras.Model):
    """Calls its second layer as often as it is told."""

    def __init__(self, calls=1):
        super().__init__()
        self.calls = calls
        self.hidden = keras.layers.Dense(4, name="hidden")
        self.scores = keras.layers.Dense(4, name="scores")

    def call(self, x):
        x = self.hidden(x)
        for _ in range(self.calls):
            x = self.scores(x)
        return {"scores": x}


def test_features_of_a_subclassed_teacher(x, tmp_path):
    teacher = Subclassed()
    teacher(x)
    cache = build(
        teacher, x, tmp_path / "c", dtype="float32", feature_layers=["hidden"]
    )
    found = cache.look_up_features(x)["hidden"]
    np.testing.assert_allclose(found, teacher.hidden(x), atol=1e-6)
    scores = teacher(x)["scores"]
    np.testing.assert_allclose(cache.look_up(x)["scores"], scores, atol=1e-6)
    assert "call" not in vars(teacher.hidden)


def test_features_of_a_nested_layer_are_those_of_the_outer_models_pass(x, tmp_path):
    inner = net()
    data = keras.Input((4,))
    scores = keras.layers.Dense(3)(inner(keras.layers.Rescaling(2.0)(data)))
    teacher = keras.Model(data, scores)
    cache = build(
        teacher, x, tmp_path / "c", dtype="float32", feature_layers=["hidden"]
    )
    hidden, _ = by_hand(inner, 2 * x)
    np.testing.assert_allclose(cache.look_up_features(x)["hidden"], hidden, atol=1e-6)
    np.testing.assert_allclose(cache.look_up(x), teacher(x), atol=1e-6)


def test_a_feature_layer_that_is_called_twice_is_refused(x, tmp_path):
    teacher = Subclassed(calls=2)
    teacher(x)
    with pytest.raises(ValueError, match=r"'scores' must come from one call.*2 calls"):
        build(teacher, x, tmp_path / "c", feature_layers=["scores"])
    assert "call" not in vars(teacher.scores)
    assert not list(tmp_path.iterdir())
