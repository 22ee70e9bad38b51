"""Models of keras.applications; benchmarks/channels_coverage.py has them all."""

import keras
import numpy as np
import pytest

import keras_compress as kc

from .nets import batch, outputs
from .test_exactness import make_worthless, score

FAMILIES = (
    *("MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121"),
    *("ResNet50V2", "NASNetMobile", "Xception"),
)


def build(name):
    keras.utils.set_random_seed(0)
    return getattr(keras.applications, name)(
        weights=None,
        input_shape=(96, 96, 3),
        classes=10,
        classifier_activation=None,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_worthless_channels_of_a_family_go_and_outputs_stay(name):
    model = build(name)
    make_worthless(model)
    x = batch(model)
    [expected] = outputs(model, x)
    smaller = kc.prune_channels(model, ratio=0.5, importance=score, round_to=1)
    assert smaller.count_params() < 0.4 * model.count_params()
    [found] = outputs(smaller, x)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=1e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_keeps_half_of_its_macs(name):
    smaller = kc.prune_channels(build(name), macs=0.5)
    macs = kc.profile(smaller).macs
    assert macs == smaller.channel_report.macs[1]
    assert macs / smaller.channel_report.macs[0] == pytest.approx(0.5, rel=0.01)
