"""Models of keras.applications meet a budget, or stay what they are."""

import keras
import numpy as np
import pytest

from keras_compress.factorization.factorize import factorize

FAMILIES = ("ResNet50", "MobileNetV2", "DenseNet121", "InceptionV3", "NASNetMobile")


def build(name):
    keras.utils.set_random_seed(0)
    return getattr(keras.applications, name)(weights=None)


@pytest.mark.slow
def test_half_of_vgg16_with_its_head_is_left():
    model = build("VGG16")
    smaller = factorize(model, params=0.5)
    assert model.count_params() == 138_357_544
    assert smaller.count_params() / 138_357_544 == pytest.approx(0.5, rel=0.01)
    [head] = [row for row in smaller.factor_report.layers if row.name == "fc1"]
    assert head.full_rank == 4096
    assert 138_357_544 - smaller.count_params() >= head.before - head.after > 40e6
    assert smaller(np.ones((1, 224, 224, 3), "float32")).shape == (1, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_keeps_its_outputs_with_all_energy(name):
    model = build(name)
    same = factorize(model, energy=1.0)
    assert same.count_params() == model.count_params()
    x = np.random.default_rng(0).random((1, *model.input_shape[1:]), "float32")
    np.testing.assert_array_equal(same(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_meets_a_budget(name):
    model = build(name)
    smaller = factorize(model, params=0.7)
    before, after = smaller.factor_report.params
    assert (before, after) == (model.count_params(), smaller.count_params())
    assert after / before == pytest.approx(0.7, rel=0.01)
    x = np.random.default_rng(0).random((1, *model.input_shape[1:]), "float32")
    assert np.isfinite(smaller(x)).all()


@pytest.mark.slow
def test_separable_convolutions_block_a_budget():
    with pytest.raises(
        ValueError, match=r"is left .* block14_sepconv2: no way for a Sep"
    ):
        factorize(build("Xception"), params=0.7)
