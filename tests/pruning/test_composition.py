"""Pruning together with quantization-aware training and distillation, and exported."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_compress as kc
import tflite_export


def data():
    random = np.random.default_rng(0)
    x = random.uniform(size=(96, 8, 8, 3)).astype("float32")
    return x, (x.mean(axis=(1, 2, 3)) > 0.5).astype("int32")


def net():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(16, 3, name="separable"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="scores"),
        ]
    )


def fit(model, *callbacks, epochs=2):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    x, y = data()
    return model.fit(x, y, 8, epochs, verbose=0, callbacks=list(callbacks))


def file_zeros(path):
    """(zeros, size) of each int8 constant of a file that has over 60 values."""
    interpreter = tf.lite.Interpreter(str(path))
    interpreter.allocate_tensors()
    found = []
    for detail in interpreter.get_tensor_details():
        try:
            array = interpreter.get_tensor(detail["index"])
        except ValueError:  # not a constant
            continue
        if array.dtype == np.int8 and array.size > 60 and array.shape[0] != 1:
            found.append((int((array == 0).sum()), array.size))
    return found


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("order", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_distilled_pruned_and_quantised_in_one_fit(order, tmp_path):
    teacher = net()
    fit(teacher)
    aware = kc.quantize_aware(net(), calibration_data=data()[0][:32])
    schedule = kc.PolynomialDecay(0.2, 0.8, 0, 0.8, frequency=2)
    pruning = kc.MagnitudePruning(schedule)
    callbacks = [
        kc.Distillation(teacher),
        pruning,
        kc.QuantizationSchedule(freeze_ranges_at=0.5, freeze_batchnorm_at=0.7),
    ]
    history = fit(aware, *callbacks[::order])
    assert history.history["sparsity"][-1] == pytest.approx(0.8, abs=0.01)
    assert "distillation_loss" in history.history
    for row in pruning.report.kernels:
        assert row.nonzero == round(row.weights * 0.2)
    assert len(pruning.report.kernels) == 5
    assert "compute_loss" not in vars(aware)
    assert "make_train_function" not in vars(aware)
    aware.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    tflite_export.export(loaded, tmp_path / "m.tflite")
    zeros = file_zeros(tmp_path / "m.tflite")
    assert len(zeros) >= 3
    for count, size in zeros:
        assert count >= 0.79 * size


@pytest.mark.parametrize("order", [1, -1])
def test_a_step_that_fails_puts_everything_back(order):
    student = net()

    def batches():
        x, y = data()
        yield x[:8], y[:8]
        raise InterruptedError

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("adam", loss)
    callbacks = [kc.Distillation(net()), kc.MagnitudePruning(0.5)][::order]
    options = {"steps_per_epoch": 9, "shuffle": False, "verbose": 0}
    with pytest.raises((InterruptedError, tf.errors.OpError)):
        student.fit(batches(), callbacks=callbacks, **options)
    assert not any(variable.constraint for variable in student.weights)
    assert not {"compute_loss", "make_train_function", "fit"} & set(vars(student))
    fit(student)
    assert kc.sparsity(student) == 0


FAMILIES = {
    "ConvNeXtTiny": {},
    "DenseNet121": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "InceptionResNetV2": {"size": 75},
    "InceptionV3": {"size": 75},
    "MobileNet": {},
    "MobileNetV2": {},
    "MobileNetV3Small": {},
    "NASNetMobile": {},
    "ResNet50": {},
    "ResNet50V2": {},
    "ResNet101": {},
    "VGG16": {},
    "VGG19": {},
    "Xception": {"size": 71},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_applications_prunes_saves_and_loads(family, tmp_path):
    size = FAMILIES[family].get("size", 32)
    model = getattr(keras.applications, family)(
        include_top=False, weights=None, input_shape=(size, size, 3), pooling="avg"
    )
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).uniform(size=(2, size, size, 3))
    y = np.zeros((2, model.output_shape[-1]))
    pruning = kc.MagnitudePruning(0.8)
    model.fit(x, y, verbose=0, callbacks=[pruning])
    for row in pruning.report.kernels:
        assert row.nonzero == round(row.weights * (1 - 0.8))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert kc.sparsity(loaded) == pytest.approx(0.8, abs=0.002)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )
