"""One layer at a time is pruned and measured, and the model stays what it was."""

import sys
from types import MappingProxyType

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_compress.pruning.sensitivity import Sensitivity, sensitivity


def build(**options):
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", name="first"),
            layers.Dense(3, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, **{"metrics": ["accuracy"]} | options)
    return model


def data(count=200):
    random = np.random.default_rng(0)
    return random.normal(size=(count, 6)).astype("float32"), np.arange(count) % 3


def smallest_to_zero(kernel, share):
    flat = kernel.flatten()
    flat[np.argsort(np.abs(flat))[: round(share * flat.size)]] = 0
    return flat.reshape(kernel.shape)


def accuracy(first, bias, last, last_bias, x, y):
    scores = np.maximum(x @ first + bias, 0) @ last + last_bias
    return np.mean(scores.argmax(axis=1) == y)


def test_the_accuracies_are_those_of_numpy():
    model, (x, y) = build(), data()
    first, bias, last, last_bias = model.get_weights()
    found = sensitivity(model, (x, y), sparsities=(0.25, 0.5, 0.75))
    for index, share in enumerate((0.25, 0.5, 0.75)):
        pruned = smallest_to_zero(first, share)
        expected = accuracy(pruned, bias, last, last_bias, x, y)
        assert found.values["first"][index] == pytest.approx(expected)
        pruned = smallest_to_zero(last, share)
        expected = accuracy(first, bias, pruned, last_bias, x, y)
        assert found.values["last"][index] == pytest.approx(expected)
    baseline = accuracy(first, bias, last, last_bias, x, y)
    assert found.baseline == pytest.approx(baseline)
    assert len(set(found.values["first"] + found.values["last"])) > 2


def test_the_model_stays_as_it_was():
    model = build()
    before = model.get_weights()
    sensitivity(model, data(), sparsities=(0.5,))
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_the_model_stays_as_it_was_where_an_evaluation_fails(monkeypatch):
    model = build()
    before, evaluate, calls = model.get_weights(), model.evaluate, []

    def failing(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError
        return evaluate(*args, **options)

    monkeypatch.setattr(model, "evaluate", failing)
    with pytest.raises(InterruptedError):
        sensitivity(model, data(), sparsities=(0.5, 0.9))
    for new, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_dataset_gives_what_its_arrays_give():
    model, (x, y) = build(), data()
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(50)
    expected = sensitivity(model, (x, y), sparsities=(0.5,))
    assert sensitivity(model, batches, sparsities=(0.5,)) == expected


def test_the_kernels_of_a_layer_are_pruned_together():
    model = keras.Sequential(
        [keras.Input((4, 4, 2)), layers.SeparableConv2D(3, 2, name="separable")]
    )
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((4, 4, 4, 2)), np.ones((4, 3, 3, 3))
    depthwise, pointwise, bias = model.get_weights()
    found = sensitivity(model, (x, y), (0.5,), metric="mae", lower_is_better=True)
    pruned = [smallest_to_zero(depthwise, 0.5), smallest_to_zero(pointwise, 0.5)]
    model.set_weights([*pruned, bias])
    expected = np.abs(y - np.array(model(x))).mean()
    assert found.values["separable"] == pytest.approx((expected,))


def test_layers_of_one_name_are_told_apart_by_their_paths():
    def part(name):
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(4, name="d")], name=name
        )

    model = keras.Sequential([keras.Input((4,)), part("a"), part("b")])
    model.compile("sgd", "mse")
    x = np.ones((4, 4))
    found = sensitivity(model, (x, x), (0.5,), metric="loss")
    assert list(found.values) == ["a/d", "b/d"]
    assert found.lower_is_better


MEASURED = Sensitivity(
    "accuracy", False, 0.9, (0.5, 0.8), MappingProxyType({"conv": (0.92, 0.6)})
)


def test_a_layer_never_loses_less_at_a_higher_sparsity():
    np.testing.assert_allclose(MEASURED.losses("conv"), [0, 0, 0.3], atol=1e-5)
    assert (np.diff(MEASURED.losses("conv")) > 0).all()


def test_the_table_shows_all_numbers():
    lines = [line.split() for line in str(MEASURED).split("\n")]
    assert lines[0] == ["layer", "50%", "80%"]
    assert lines[2] == ["conv", "0.9200", "0.6000"]
    assert lines[3][-1] == "0.9000"


class Axes:
    """What `plot` asks of Matplotlib's axes."""

    def __init__(self):
        self.lines, self.labels = {}, {}

    def plot(self, x, y, label):
        self.lines[label] = (tuple(x), tuple(y))

    def set(self, **labels):
        self.labels = labels

    def legend(self, **options):
        pass


def test_the_picture_has_a_line_for_each_layer():
    axes = Axes()
    assert MEASURED.plot(axes) is axes
    assert axes.lines == {"conv": ((0, 0.5, 0.8), (0.9, 0.92, 0.6))}
    assert axes.labels["ylabel"] == "accuracy"


def test_matplotlib_draws_the_picture(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    axes = MEASURED.plot()
    [line] = axes.get_lines()
    np.testing.assert_array_equal(line.get_ydata(), [0.9, 0.92, 0.6])
    axes.figure.savefig(tmp_path / "sensitivity.png")
    assert (tmp_path / "sensitivity.png").stat().st_size > 1000


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        MEASURED.plot()


@pytest.mark.parametrize("sparsities", [(), (0.0, 0.5), (0.5, 1.0), (0.9, 0.5), 0.5])
def test_sparsities_that_are_not_ascending_shares_are_refused(sparsities):
    with pytest.raises(ValueError, match="must be ascending numbers between 0 and 1"):
        sensitivity(build(), data(), sparsities)


def test_a_metric_that_the_model_lacks_is_refused():
    with pytest.raises(ValueError, match=r"\['loss'\].*metric='accuracy'"):
        sensitivity(build(metrics=[]), data())


def test_a_model_that_is_not_compiled_is_refused():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match="must be compiled"):
        sensitivity(model, data())


def test_an_iterator_is_refused_since_it_can_be_read_once():
    with pytest.raises(ValueError, match=r"read several times.*generator"):
        sensitivity(build(), (batch for batch in [data()]))


def test_a_model_without_a_kernel_is_refused():
    model = keras.Sequential([keras.Input((6,)), layers.ReLU()])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="no kernel to prune"):
        sensitivity(model, data())
