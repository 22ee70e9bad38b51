"""Random graphs: worthless channels go exactly; pruned models run, train and load."""

import keras
import numpy as np
import pytest

import keras_compress as kc
import tflite_export

from .nets import batch, outputs, randomized
from .random_nets import random_model
from .test_exactness import make_worthless, score

QUICK, ALL = range(20), range(20, 200)
# Training and exporting one takes seconds.
EXPORTED = [seed for seed in range(100) if seed % 10 in (4, 5)] + [10]
# TensorFlow's converter joins a ReLU to the last product of an exact gelu before it,
# which it then no longer knows; nothing else is refused.
REFUSED = "ops that LiteRT does not have built in: Erfc"
SEEDS = [*QUICK, *(pytest.param(seed, marks=pytest.mark.slow) for seed in ALL)]


@pytest.mark.parametrize("seed", SEEDS)
def test_worthless_channels_of_a_random_graph_go_and_outputs_stay(seed):
    model = randomized(random_model(seed))
    make_worthless(model)
    x = batch(model)
    smaller = kc.prune_channels(model, ratio=0.5, importance=score, round_to=1)
    assert smaller.count_params() < model.count_params()
    pairs = zip(outputs(model, x), outputs(smaller, x), strict=True)
    for before, after in pairs:
        scale = np.abs(before).max()
        assert scale > 0
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5 * max(1, scale))


@pytest.mark.slow
# With random weights a ReLU may be zero on all data.
@pytest.mark.filterwarnings("ignore:The outputs of these layers are zero")
@pytest.mark.parametrize("seed", EXPORTED)
def test_a_pruned_random_graph_trains_loads_and_exports(seed, tmp_path):
    model = randomized(random_model(seed))
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    smaller = kc.prune_channels(model, ratio=0.6, round_to=2)
    x = batch(smaller, 16)
    targets = [np.zeros((16, 3), "float32") for _ in smaller.outputs]
    smaller.fit(x, targets if len(targets) > 1 else targets[0], verbose=0)
    smaller.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    for one, other in zip(outputs(smaller, x), outputs(loaded, x), strict=True):
        np.testing.assert_array_equal(one, other)
    for quantization in ("none", "int8"):
        path = tmp_path / f"{quantization}.tflite"
        try:
            export(loaded, path, quantization, x)
        except ValueError as error:
            assert REFUSED in str(error)
            with pytest.raises(ValueError, match=REFUSED):
                export(model, path, quantization, x)
        else:
            assert tflite_export.inspect(path).macs == kc.profile(smaller).macs


def export(model, path, quantization, x):
    tflite_export.export(
        model,
        path,
        quantization=quantization,
        representative_data=x if quantization == "int8" else None,
        allow_float_ops=True,
    )
