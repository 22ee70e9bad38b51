"""Models of keras.applications and others; benchmarks/qat_coverage.py has them all."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export

SIZE = 32


def _images(count, size=SIZE):
    """Smooth random images in [0, 255]."""
    coarse = np.random.default_rng(0).uniform(0, 255, size=(count, 8, 8, 3))
    return np.asarray(keras.ops.image.resize(coarse, (size, size)), "float32")


def _settled(model, images):
    """The model with the images' BatchNorm statistics and most of its units active."""
    norms = [x for x in model.layers if isinstance(x, layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        if layer.scale:
            layer.gamma.assign(0.5 * keras.ops.ones_like(layer.gamma))
        layer.beta.assign(keras.ops.ones_like(layer.beta))
    model(images, training=True)
    for layer in norms:
        layer.momentum = 0.99
    return model


def _fitted_and_loaded(model, x, tmp_path):
    """The quantization-aware model after one step of training, from its file."""
    aware = kc.quantize_aware(model, calibration_data=x)
    aware.compile(keras.optimizers.SGD(1e-3), "mse")
    before = [np.array(weight) for weight in aware.trainable_weights]
    targets = np.zeros((8, *aware.output.shape[1:]))
    aware.fit(x[:8], targets, batch_size=8, verbose=0)
    pairs = zip(before, aware.trainable_weights, strict=True)
    assert any(not np.array_equal(old, new) for old, new in pairs)
    aware.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    after = loaded.predict(x, verbose=0)
    np.testing.assert_array_equal(after, aware.predict(x, verbose=0))
    return aware, loaded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "depthwise"),
    # By hand, from the papers: one for each of 13 blocks, one for each of 17.
    [(keras.applications.MobileNet, 13), (keras.applications.MobileNetV2, 17)],
)
def test_a_mobile_network_trains_loads_and_exports_in_int8(build, depthwise, tmp_path):
    options = {"weights": None, "classes": 10, "classifier_activation": None}
    x = _images(24) / 127.5 - 1
    model = _settled(build(input_shape=(SIZE, SIZE, 3), **options), x)
    aware, loaded = _fitted_and_loaded(model, x, tmp_path)
    assert not aware.quantization_report.float_layers
    result = tflite_export.export(loaded, tmp_path / "m.tflite")
    assert not result.float_ops
    assert result.ops["DEPTHWISE_CONV_2D"] == depthwise
    agreement = tflite_export.compare(loaded, tmp_path / "m.tflite", x)
    # An untrained network of this depth amplifies every rounding.
    assert agreement.mean_abs_diff < 4 * agreement.output_step


@pytest.mark.slow
def test_a_vgg16_inside_a_sequential_trains_loads_and_exports_in_int8(tmp_path):
    body = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(SIZE, SIZE, 3)
    )
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10)]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), body, *head])
    x = _images(24) / 127.5 - 1
    aware, loaded = _fitted_and_loaded(model, x, tmp_path)
    assert not aware.quantization_report.float_layers
    result = tflite_export.export(loaded, tmp_path / "m.tflite")
    assert not result.float_ops
    # By hand: 13 convolutions, and one Dense layer in place of VGG16's three.
    assert (result.ops["CONV_2D"], result.ops["FULLY_CONNECTED"]) == (13, 1)
    agreement = tflite_export.compare(loaded, tmp_path / "m.tflite", x)
    # An untrained network of this depth amplifies every rounding.
    assert agreement.mean_abs_diff < 4 * agreement.output_step


def _class_of(model, name):
    return next(type(layer) for layer in model.layers if type(layer).__name__ == name)


def _branch(join):
    """A small net in which `join` brings an activation and a branch of it together."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = join(x, layers.Conv2D(8, 3, padding="same")(x))
    return keras.Model(image, layers.Dense(5)(layers.GlobalAveragePooling2D()(x)))


def _check_small(model, tmp_path):
    """What it computes in float, quantised and in the file is close to the same."""
    x = np.random.default_rng(0).normal(size=(64, 16, 16, 3)).astype("float32")
    aware, loaded = _fitted_and_loaded(model, x, tmp_path)
    assert not aware.quantization_report.float_layers
    result = tflite_export.export(loaded, tmp_path / "m.tflite")
    assert not result.float_ops
    agreement = tflite_export.compare(loaded, tmp_path / "m.tflite", x)
    assert agreement.within_one_step >= 0.97
    exact = model.predict(x, verbose=0)
    plain = kc.quantize_aware(model, calibration_data=x).predict(x, verbose=0)
    assert np.abs(exact - plain).max() < 0.05 * np.ptp(exact)
    return result


@pytest.mark.slow
def test_the_scaled_sum_of_inception_resnet_is_a_product_and_a_sum(tmp_path):
    big = keras.applications.InceptionResNetV2(
        weights=None, include_top=False, input_shape=(75, 75, 3)
    )
    scaled = _class_of(big, "CustomScaleLayer")(0.17)
    model = _branch(lambda x, y: layers.ReLU()(scaled([x, y])))
    _check_small(model, tmp_path)


@pytest.mark.slow
def test_the_layer_scale_of_convnext_is_computed_in_int8(tmp_path):
    big = keras.applications.ConvNeXtTiny(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )
    scale = _class_of(big, "LayerScale")(0.3, 8)
    model = _branch(lambda x, y: layers.Add()([x, scale(y)]))
    scale.gamma.assign(np.random.default_rng(1).normal(size=8))
    _check_small(model, tmp_path)


class LayerScale(layers.Layer):
    """A user's own layer, which does something else than Keras' of that name."""

    def call(self, inputs):
        return inputs + 1


def test_a_users_own_layer_of_a_known_name_stays_in_float():
    aware = kc.quantize_aware(_branch(lambda x, y: x + LayerScale()(y)))
    kinds = [row.kind for row in aware.quantization_report.float_layers]
    assert kinds == ["LayerScale"]


@pytest.mark.parametrize(
    "make",
    [
        layers.ReLU,
        pytest.param(layers.LeakyReLU, marks=pytest.mark.slow),
        pytest.param(lambda: layers.Activation("sigmoid"), marks=pytest.mark.slow),
    ],
    ids=["relu", "leaky_relu", "sigmoid"],
)
def test_layers_that_compute_the_same_are_one_op_on_one_range(make, tmp_path):
    # The converter merges them; on two ranges the one op would be left in float.
    # The second is in a Concatenate with larger values. NASNet has such layers.
    def join(x, y):
        first, second = make()(y), make()(y)
        joined = layers.Concatenate()([layers.Rescaling(1.2)(y), second])
        return layers.Add()([layers.Conv2D(8, 1)(first), layers.Conv2D(8, 1)(joined)])

    _check_small(_branch(join), tmp_path)


@pytest.mark.slow
def test_a_silu_that_is_computed_twice_is_on_one_range(tmp_path):
    def join(x, y):
        first, second = (layers.Activation("silu")(y) for _ in range(2))
        joined = layers.Concatenate()([layers.Rescaling(1.2)(y), second])
        return layers.Add()([layers.Conv2D(8, 1)(first), layers.Conv2D(8, 1)(joined)])

    result = _check_small(_branch(join), tmp_path)
    assert result.ops["MUL"] == 2


@pytest.mark.slow
def test_operations_with_int8_kernels_stay_in_int8(tmp_path):
    ops = keras.ops

    def join(x, y):
        y = ops.abs(y) / 3.0 + ops.exp(ops.minimum(y, 0.5))
        y = ops.swapaxes(ops.repeat(y, 2, axis=1), 1, 2)
        y = ops.tile(ops.max_pool(y, (1, 2)), (1, 1, 1, 2))
        y = ops.stack([y, layers.Concatenate()([x, x])], axis=-1)
        y = layers.Conv2D(8, 1)(ops.min(y, axis=-1))
        return ops.sum(y, axis=(1, 2), keepdims=True) / ops.sigmoid(x)

    _check_small(_branch(join), tmp_path)


@pytest.mark.parametrize(
    "relu",
    [
        layers.ReLU(1.0),
        layers.ReLU(8.0),
        lambda x: keras.ops.maximum(x, 0.0),
        lambda x: keras.ops.maximum(0.1, x),
    ],
    ids=["cap_1", "cap_8", "maximum", "maximum_of_number"],
)
def test_relus_of_all_sorts_stay_in_int8(relu, tmp_path):
    def join(x, y):
        return layers.Concatenate()([layers.Conv2D(8, 1)(relu(y)), x])

    _check_small(_branch(join), tmp_path)


def test_a_product_with_one_between_two_sums_is_no_op_of_its_own(tmp_path):
    # One by one pixels: Keras adds them as a bias, which the converter reshapes. That
    # is an error if the range before it and the range after it are not the same.
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 16, activation="relu")(image)
    y = layers.Rescaling(1.0)(layers.Conv2D(8, 1)(x))
    model = keras.Model(image, layers.Conv2D(5, 1)(layers.Add()([x, y])))
    _check_small(model, tmp_path)


@pytest.mark.parametrize(
    "between", [layers.Flatten, lambda: layers.Reshape((-1,))], ids=["flatten", "shape"]
)
def test_a_reshaped_sigmoid_may_meet_others_in_a_concatenation(between, tmp_path):
    def join(x, y):
        gate = between()(layers.Conv2D(4, 1, activation="sigmoid")(y))
        joined = layers.Concatenate()([between()(x), gate])
        return layers.Reshape((1, 1, 8))(layers.Dense(8)(joined))

    _check_small(_branch(join), tmp_path)


def test_attention_may_be_flattened(tmp_path):
    tokens = keras.Input((12, 16))
    x = layers.Flatten()(layers.MultiHeadAttention(2, 8)(tokens, tokens))
    model = keras.Model(tokens, layers.Dense(3)(x))
    x = np.random.default_rng(0).normal(size=(64, 12, 16)).astype("float32")
    aware, loaded = _fitted_and_loaded(model, x, tmp_path)
    assert not aware.quantization_report.float_layers
    assert not tflite_export.export(loaded, tmp_path / "m.tflite").float_ops
    agreement = tflite_export.compare(loaded, tmp_path / "m.tflite", x)
    assert agreement.within_one_step >= 0.97


def test_attention_with_a_mask_that_is_passed_along_stays_whole():
    ids = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 16, embeddings_initializer="normal", mask_zero=True)(ids)
    x = layers.Dense(16)(layers.MultiHeadAttention(2, 8)(x, x))
    model = keras.Model(ids, layers.GlobalAveragePooling1D()(x))
    words = np.random.default_rng(0).integers(1, 50, (64, 12)).astype("int32")
    # Unmasked, these would take part in every mean.
    words[:, 6:] = 0
    aware = kc.quantize_aware(model, calibration_data=words)
    kinds = {row.kind for row in aware.quantization_report.float_layers}
    assert "MultiHeadAttention" in kinds
    exact = model.predict(words, verbose=0)
    assert np.abs(exact - aware.predict(words, verbose=0)).max() < 0.05 * np.ptp(exact)


@pytest.mark.slow
def test_a_normalization_that_follows_a_kernel_in_one_of_two_calls(tmp_path):
    shared = layers.BatchNormalization()

    def join(x, y):
        after_kernel = layers.ReLU()(shared(layers.Conv2D(8, 1)(y)))
        alone = shared(layers.ReLU()(layers.Conv2D(8, 1)(y)))
        return layers.Add()([after_kernel, alone])

    _check_small(_branch(join), tmp_path)
