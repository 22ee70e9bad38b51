import keras
import numpy as np
import pytest
import tensorflow as tf

import tflite_export
from tflite_export.evaluate import evaluate


@pytest.fixture
def y():
    return np.random.default_rng(1).integers(0, 5, 50)


@pytest.fixture
def weights():
    return np.random.default_rng(2).uniform(size=50).astype("float32")


@pytest.fixture(scope="module")
def two_outputs():
    data = keras.Input((8, 8, 3), name="image")
    flat = keras.layers.Flatten()(data)
    classes = keras.layers.Dense(5, activation="softmax", name="zeta")(flat)
    return keras.Model(data, [classes, keras.layers.Dense(1, name="alpha")(flat)])


def _metrics():
    return [
        "accuracy",
        keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2"),
        keras.metrics.SparseCategoricalCrossentropy(from_logits=True, name="entropy"),
    ]


def _without_loss(result):
    return {k: value for k, value in result.items() if not k.endswith("loss")}


def test_a_float_file_scores_what_the_model_scores(model, float_file, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=_metrics())
    expected = _without_loss(model.evaluate(x, y, verbose=0, return_dict=True))
    assert len(expected) == 3
    assert evaluate(float_file, (x, y), _metrics()) == pytest.approx(expected)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    assert evaluate(float_file, dataset, _metrics()) == pytest.approx(expected)


def test_accuracy_is_that_of_predict(int8_file, x, y):
    expected = (tflite_export.predict(int8_file, x).argmax(-1) == y).mean()
    assert evaluate(int8_file, (x, y), ["accuracy"])["accuracy"] == pytest.approx(
        expected
    )
    one_hot = np.eye(5)[y]
    assert evaluate(int8_file, (x, one_hot), ["acc"])["acc"] == pytest.approx(expected)


def test_binary_accuracy_is_chosen_for_one_output(x, tmp_path):
    layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    y = np.random.default_rng(1).integers(0, 2, (50, 1))
    expected = ((tflite_export.predict(path, x) > 0.5) == y).mean()
    found = evaluate(path, (x, y), ["accuracy"])
    assert found["accuracy"] == pytest.approx(expected)


def test_sample_weights_weight_the_metrics(model, float_file, x, y, weights):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, weighted_metrics=["accuracy"])
    expected = model.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
    found = evaluate(float_file, (x, y, weights), ["accuracy"])
    assert found == pytest.approx(_without_loss(expected))
    plain = evaluate(float_file, (x, y), ["accuracy"])
    assert found["accuracy"] != pytest.approx(plain["accuracy"], abs=1e-3)


def test_several_outputs_take_targets_and_metrics_by_name(two_outputs, x, y, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(two_outputs, path, quantization="none")
    targets = {"zeta": y, "alpha": np.random.default_rng(3).normal(size=(50, 1))}
    metrics = {"zeta": ["accuracy"], "alpha": ["mae"]}
    loss = {"zeta": "sparse_categorical_crossentropy", "alpha": "mse"}
    two_outputs.compile(loss=loss, metrics=metrics)
    expected = two_outputs.evaluate(x, targets, verbose=0, return_dict=True)
    found = evaluate(path, (x, targets), metrics)
    assert found == pytest.approx(_without_loss(expected), rel=1e-5)
    assert set(found) == {"zeta_accuracy", "alpha_mae"}
    with pytest.raises(ValueError, match="y as a dict with one entry for each output"):
        evaluate(path, (x, y), metrics)


def test_metric_objects_are_reset_first_and_hold_the_result(float_file, x, y):
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state([0] * 1000, np.eye(5)[[0] * 1000])
    found = evaluate(float_file, (x, y), [metric])
    assert found["sparse_categorical_accuracy"] < 0.6
    assert float(metric.result()) == found["sparse_categorical_accuracy"]


def test_one_batch_is_in_memory_at_a_time(float_file, x, y):
    seen = []

    def batches():
        for start in range(0, 50, 10):
            seen.append(start)
            yield x[start : start + 10], y[start : start + 10]

    source = batches()
    next_metric = keras.metrics.MeanMetricWrapper(
        lambda t, p: (seen.append("scored"), keras.ops.zeros(len(t)))[1], name="zero"
    )
    evaluate(float_file, source, [next_metric])
    assert seen == [item for start in range(0, 50, 10) for item in (start, "scored")]


def test_datasets_that_do_not_fit_are_named(float_file, x, y):
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(5).repeat()
    only_x = tf.data.Dataset.from_tensor_slices(x).batch(5)
    for dataset, message in (
        (endless, "an endless"),
        (only_x, r"must yield \(x, y\)"),
        (tf.data.Dataset.from_tensor_slices((x, y)), r"\(examples, 8, 8, 3\)"),
        ((x, y[:7]), r"lengths \[7, 50\]"),
        ((x[:0], y[:0]), "at least one batch"),
        (None, "NoneType"),
        (iter([(x[:4], y[:3])]), "one row of y for each example"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(float_file, dataset, ["accuracy"])


@pytest.mark.parametrize("metrics", [None, [], "accuracy", ["no_such_metric"]])
def test_metrics_that_keras_does_not_know_are_named(float_file, x, y, metrics):
    with pytest.raises(ValueError, match="`metrics` must"):
        evaluate(float_file, (x, y), metrics)
