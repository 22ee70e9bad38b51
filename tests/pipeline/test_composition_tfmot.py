"""What loading does to zeros under TFMOT's preserving QAT, and under this package's."""

import keras
import numpy as np
import pytest
import tf_keras

import keras_compress as kc
from keras_compress.tfmot import import_tfmot

# TFMOT is not free of warnings on today's NumPy and TensorFlow.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5"),
]

SPARSITY = 0.5


def net(library):
    library.utils.set_random_seed(0)
    layers = library.layers
    return library.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(4, name="scores"),
        ]
    )


def sparse(model):
    """The model, the smaller half of each kernel zero."""
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.get_weights()
            kernel[abs(kernel) < np.quantile(abs(kernel), SPARSITY)] = 0
            layer.set_weights([kernel, bias])
    return model


def zeros(model):
    """The share of zeros of both kernels."""
    kernels = [np.array(w) for w in model.weights if "kernel" in w.name]
    kernels = [kernel for kernel in kernels if kernel.ndim > 1]
    assert len(kernels) == 2
    return 1 - sum(map(np.count_nonzero, kernels)) / sum(k.size for k in kernels)


def fit(model, library, *callbacks):
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 8, 8, 3)).astype("float32")
    y = random.integers(0, 4, 32)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(library.optimizers.Adam(0.01), loss)
    model.fit(x, y, verbose=0, callbacks=list(callbacks))
    return model


def preserving(scheme):
    """A sparse model, quantised by a scheme of TFMOT's and trained."""
    quantization = import_tfmot().quantization.keras
    annotated = quantization.quantize_annotate_model(sparse(net(tf_keras)))
    return fit(quantization.quantize_apply(annotated, scheme), tf_keras)


def load(path):
    with import_tfmot().quantization.keras.quantize_scope():
        return tf_keras.models.load_model(path)


@pytest.mark.slow
def test_tfmot_loses_the_zeros_of_a_loaded_model_that_trains_on(tmp_path):
    """PQAT: the mask is made of the weights at build, which are not loaded yet."""
    schemes = import_tfmot().experimental.combine
    aware = preserving(schemes.Default8BitPrunePreserveQuantizeScheme())
    aware.save(tmp_path / "m.h5")
    loaded = load(tmp_path / "m.h5")
    # Those of the convolution are gone before that, in the first fit.
    assert zeros(loaded) == zeros(aware) > 0.4
    assert zeros(fit(loaded, tf_keras)) < 0.01


@pytest.mark.slow
def test_tfmot_cannot_load_its_sparse_and_clustered_model(tmp_path):
    """PCQAT."""
    schemes = import_tfmot().experimental.combine
    aware = preserving(schemes.Default8BitClusterPreserveQuantizeScheme(True))
    aware.save(tmp_path / "m.h5")
    with pytest.raises(ValueError, match="Weight count mismatch"):
        load(tmp_path / "m.h5")


def test_zeros_here_live_through_a_load(tmp_path):
    aware = kc.quantize_aware(sparse(net(keras)))
    fit(aware, keras, kc.MagnitudePruning("keep"))
    assert zeros(aware) == pytest.approx(SPARSITY, abs=0.001)
    aware.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    before = zeros(loaded)
    fit(loaded, keras, kc.MagnitudePruning("keep"))
    assert zeros(loaded) == before == zeros(aware)
