"""Keras 2 and TFMOT models moved to Keras 3, and what the move leaves untouched."""

import ast
import importlib
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_compress
import tflite_export
from keras_compress.tfmot import StoredRange, from_tfmot, import_tfmot

# TFMOT is not free of warnings on today's NumPy and TensorFlow.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
layers = tf_keras.layers
INTERNAL = "tensorflow_model_optimization.python.core"


@pytest.fixture
def rng():
    tf_keras.backend.clear_session()
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def tfmot():
    return import_tfmot()


def images(rng, *shape):
    return rng.normal(size=(4, *shape)).astype("float32")


def difference(old, new, x):
    """The largest difference between two models, relative where outputs exceed 1."""
    expected, found = old(x, training=False), new(x, training=False)
    return float(np.max(np.abs(expected - found)) / max(1.0, np.max(np.abs(expected))))


def run_python(code, **environment):
    clean = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env=clean | environment,
    )


MOVE = (
    "import keras_compress.tfmot as door\n"
    "tfmot = door.import_tfmot()\n"
    "import tf_keras\n"
    "old = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,))])\n"
    "door.from_tfmot(old)\n"
    "old = tfmot.quantization.keras.quantize_model(old)\n"
    "door.from_tfmot(old)\n"
)


@pytest.mark.parametrize(
    "first", ["", "import keras\n", "import tensorflow\n", "import tf_keras\n"]
)
def test_the_import_leaves_tf_keras_and_the_environment_alone(first):
    code = (
        f"import os\nbefore = dict(os.environ)\n{first}{MOVE}"
        "import keras, tensorflow as tf\n"
        "added = {k: v for k, v in os.environ.items() if before.get(k) != v}\n"
        "print(added.get('TF_USE_LEGACY_KERAS'), tf.keras.__version__ =="
        " keras.__version__, tf.optimizers.Adam is keras.optimizers.Adam)"
    )
    process = run_python(code)
    assert process.stdout.strip() == "None True True", process.stderr


def test_a_model_made_after_a_plain_import_of_tfmot_moves_too():
    code = (
        "import tensorflow_model_optimization as tfmot, tensorflow as tf\n"
        "layers = tf.keras.layers\n"
        "old = tf.keras.Sequential([layers.Dense(2, input_shape=(3,))])\n"
        "from keras_compress.tfmot import from_tfmot\n"
        "new = from_tfmot(tfmot.quantization.keras.quantize_model(old))\n"
        "import keras\n"
        "print(tf.keras.__name__, isinstance(new, keras.Sequential))"
    )
    process = run_python(code)
    assert process.stdout.strip() == "tf_keras.api._v2.keras True", process.stderr


def test_a_user_who_chose_keras_2_keeps_it():
    code = (
        f"{MOVE}import os, tensorflow as tf\n"
        "print(os.environ['TF_USE_LEGACY_KERAS'], tf.keras.__name__)"
    )
    process = run_python(code, TF_USE_LEGACY_KERAS="True")
    assert process.stdout.strip() == "True tf_keras.api._v2.keras", process.stderr


@pytest.mark.parametrize("missing", ["tf_keras", "tensorflow_model_optimization"])
def test_without_the_packages_the_error_says_what_to_install(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install .* tf_keras setuptools"):
        from_tfmot(None) if missing == "tf_keras" else import_tfmot()


def test_no_other_file_imports_tfmot_or_keras_2():
    found = set()
    for package in (keras_compress, tflite_export):
        for path in pathlib.Path(package.__path__[0]).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in getattr(node, "names", [])]
                names.append(getattr(node, "module", None) or "")
                if {"tensorflow_model_optimization", "tf_keras"} & {
                    name.split(".")[0] for name in names if isinstance(name, str)
                }:
                    found.add(path.name)
    assert found == {"tfmot.py"}


def small_net():
    inputs = tf_keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    a = layers.ReLU(6.0)(x)
    b = layers.DepthwiseConv2D(3, padding="same", activation="relu")(a)
    x = layers.Concatenate()([layers.Add()([a, b]), b])
    x = layers.Conv2DTranspose(6, 2, strides=2)(x)
    x = layers.SeparableConv2D(8, 3)(x)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Activation("relu")(layers.Dropout(0.1)(x))
    x = layers.Conv2D(8, 3, strides=2, activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(8, activation="tanh")(x)
    return tf_keras.Model(inputs, layers.Dense(5)(x))


def trained(model, rng, *callbacks, epochs=2):
    model.compile(tf_keras.optimizers.Adam(1e-2), "mse")
    x = rng.normal(size=(64, *model.input_shape[1:]))
    y = rng.normal(size=(64, model.output_shape[-1]))
    model.fit(x, y, 16, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def pruned(tfmot, rng, model=None):
    sparsity = tfmot.sparsity.keras
    schedule = sparsity.ConstantSparsity(0.5, 0, frequency=1)
    model = sparsity.prune_low_magnitude(model or small_net(), schedule)
    return trained(model, rng, sparsity.UpdatePruningStep())


def test_a_pruned_model_keeps_its_zeros(tfmot, rng):
    old = pruned(tfmot, rng)
    new = from_tfmot(old)
    assert np.mean(keras.ops.equal(new.get_layer("dense").kernel, 0)) == 0.5
    x = images(rng, 16, 16, 3)
    assert difference(tfmot.sparsity.keras.strip_pruning(old), new, x) <= 1e-5
    assert difference(old, from_tfmot(old), x) <= 1e-5


def test_a_pruned_model_is_masked_whatever_its_weights_are(tfmot, rng):
    inputs = [tf_keras.Input((6, 4)), layers.LSTM(5), layers.Dense(3)]
    old = pruned(tfmot, rng, tf_keras.Sequential(inputs))
    for weight in old.trainable_weights:
        weight.assign_add(tf.ones_like(weight))
    new = from_tfmot(old)
    assert difference(old, new, images(rng, 6, 4)) <= 1e-5


@pytest.mark.parametrize("preserve_sparsity", [False, True])
def test_a_clustered_model_keeps_its_centroids(preserve_sparsity, tfmot, rng):
    cluster = importlib.import_module(
        f"{INTERNAL}.clustering.keras.experimental.cluster"
    )
    dense = small_net()
    if preserve_sparsity:
        for weight in dense.trainable_weights:
            weight.assign(weight * tf.cast(abs(weight) > 0.03, tf.float32))
    init = tfmot.clustering.keras.CentroidInitialization.LINEAR
    old = cluster.cluster_weights(dense, 8, init, preserve_sparsity=preserve_sparsity)
    new = from_tfmot(trained(old, rng))
    kernel = new.get_layer("dense").get_weights()[0]
    assert len(np.unique(kernel)) == 8
    assert (np.mean(kernel == 0) > 0.3) == preserve_sparsity
    assert difference(old, new, images(rng, 16, 16, 3)) <= 1e-5


def quantized(tfmot, rng, model):
    """Ranges that clip and rounding that shows, as after a long training."""
    old = tfmot.quantization.keras.quantize_model(model)
    trained(old, rng)
    for weight in old.weights:
        if "kernel" not in weight.name and weight.name.endswith(("_min:0", "_max:0")):
            sign = -1 if weight.name.endswith("_min:0") else 1
            weight.assign(sign * rng.uniform(1.0, 2.0))
    return old


def test_a_quantization_aware_model_rounds_and_clips_the_same(tfmot, rng):
    old = quantized(tfmot, rng, small_net())
    before, new = old.get_weights(), from_tfmot(old)
    assert difference(old, new, images(rng, 16, 16, 3)) <= 1e-5
    for was, weight in zip(before, old.get_weights(), strict=True):
        np.testing.assert_array_equal(was, weight)


@pytest.mark.parametrize("frozen", [False, True])
def test_four_bits_and_frozen_layers(frozen, tfmot, rng):
    schemes = importlib.import_module(
        f"{INTERNAL}.quantization.keras.experimental.default_n_bit"
        ".default_n_bit_quantize_scheme"
    )
    annotated = tfmot.quantization.keras.quantize_annotate_model(small_net())
    old = tfmot.quantization.keras.quantize_apply(
        annotated, schemes.DefaultNBitQuantizeScheme(num_bits_weight=4)
    )
    trained(old, rng)
    old.trainable = not frozen
    new = from_tfmot(old)
    assert len(np.unique(new.get_layer("dense").get_weights()[0])) <= 15
    assert difference(old, new, images(rng, 16, 16, 3)) <= 1e-5


def test_rounded_kernels_lie_on_the_grids_that_tfmot_stored(tfmot, rng):
    old = quantized(tfmot, rng, small_net())
    new = from_tfmot(old)
    stored = {weight.name: weight.numpy() for weight in old.weights}
    for name, channels in (("conv2d", 8), ("dense", None)):
        scale = stored[f"quant_{name}/kernel_max:0"] / 127
        assert scale.shape == ((channels,) if channels else ())
        steps = new.get_layer(name).get_weights()[0] / scale
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
        assert np.ptp(steps) > 127


def converted_by_tensorflow(old, path):
    signature = tf.TensorSpec((1, *old.input_shape[1:]))
    function = tf.function(lambda x: old(x, training=False))
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function(signature)], old
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())
    return path


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs:UserWarning")
def test_the_int8_file_is_as_close_as_that_of_tfmot(tfmot, rng, tmp_path):
    old = quantized(tfmot, rng, small_net())
    new = from_tfmot(old)
    tflite_export.export(new, tmp_path / "model.tflite")
    assert not tflite_export.inspect(tmp_path / "model.tflite").float_ops
    x = rng.normal(size=(200, 16, 16, 3)).astype("float32")
    other = converted_by_tensorflow(old, tmp_path / "other.tflite")
    found = tflite_export.compare(new, tmp_path / "model.tflite", x)
    expected = tflite_export.compare(new, other, x)
    assert found.within_one_step >= expected.within_one_step - 0.05
    assert found.mean_abs_diff <= 1.2 * expected.mean_abs_diff


@pytest.mark.slow
def test_quantization_aware_mobilenet_v2_becomes_an_int8_file(tfmot, rng, tmp_path):
    old = tf_keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), classes=10, alpha=0.35
    )
    old = quantized(tfmot, rng, old)
    new = from_tfmot(old)
    assert difference(old, new, images(rng, 32, 32, 3)) <= 1e-5
    tflite_export.export(new, tmp_path / "model.tflite")
    assert not tflite_export.inspect(tmp_path / "model.tflite").float_ops


def test_what_came_over_is_saved_and_loaded(tfmot, rng, tmp_path):
    x = tf_keras.Input((5,))
    hidden = layers.Dense(4, activation="relu")(x)
    old = quantized(tfmot, rng, tf_keras.Model(x, layers.Dense(3)(hidden)))
    new = from_tfmot(old)
    new.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert difference(old, loaded, images(rng, 5)) <= 1e-5
    assert any(isinstance(layer, StoredRange) for layer in loaded.layers)


def test_fake_quantize_rounds_to_its_grid_and_passes_gradients():
    layer = StoredRange(num_bits=3, narrow_range=True)
    layer.build((None,))
    layer.set_weights(np.array([-3.0, 3.0]))
    x = tf.constant([-9.0, -1.4, 0.6, 2.6])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    np.testing.assert_allclose(y, [-3.0, -1.0, 1.0, 3.0], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(y, x), [0.0, 1.0, 1.0, 1.0])
