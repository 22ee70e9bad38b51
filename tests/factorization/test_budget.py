"""Which ranks meet a number of parameters, against all combinations of ranks."""

import itertools
import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_compress.factorization.budget import Option, by_energy, by_params, options
from keras_compress.factorization.factorize import factorize
from keras_compress.factorization.spectrum import spectrum
from keras_compress.factorization.ways import Matrix


def table(n, m, decay, seed):
    """The options of a matrix whose singular values fall as rank ** -decay."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.normal(size=(n, n)))[0]
    right = np.linalg.qr(random.normal(size=(m, m)))[0]
    k = min(n, m)
    values = np.arange(1, k + 1.0) ** -decay
    matrix = ((left[:, :k] * values) @ right[:, :k].T).astype("float32")
    way = Matrix()
    return options({way: (n, m)}, {way: spectrum(matrix)}, 8)


THREE = [table(96, 64, 0.2, 0), table(200, 120, 0.8, 1), table(80, 80, 1.5, 2)]
FULL = 96 * 64 + 200 * 120 + 80 * 80


def energies(chosen):
    return math.prod(1 - option.lost for option in chosen)


@pytest.mark.parametrize("share", [0.15, 0.25, 0.4, 0.6, 0.8, 0.95])
def test_no_combination_of_ranks_keeps_much_more(share):
    found = by_params(THREE, share * FULL)
    assert sum(option.params for option in found) <= share * FULL
    best = max(
        energies(chosen)
        for chosen in itertools.product(*THREE)
        if sum(option.params for option in chosen) <= share * FULL
    )
    assert energies(found) >= 0.99 * best


def test_a_flat_spectrum_keeps_its_kernel_and_a_steep_one_gives():
    flat, _, steep = by_params(THREE, 0.7 * FULL)
    assert (flat.way, flat.params) == (None, 96 * 64)
    assert steep.rank < 40
    assert steep.lost < 0.02


def test_a_budget_of_everything_changes_nothing():
    assert by_params(THREE, FULL) == [layer[-1] for layer in THREE]
    assert by_params([], 0) == []


def test_each_option_loses_less_than_all_cheaper_ones():
    for layer in THREE:
        params, lost = zip(*((o.params, o.lost) for o in layer), strict=True)
        assert list(params) == sorted(params)
        assert list(lost) == sorted(lost, reverse=True)
        assert all(option.rank % 8 == 0 for option in layer)
        assert layer[-1] == Option(layer[-1].params, 0.0)


def test_one_share_of_energy_is_kept_by_every_layer():
    for layer, option in zip(THREE, by_energy(THREE, 0.9), strict=True):
        assert option.lost <= 0.1
        cheaper = [other for other in layer if other.params < option.params]
        assert all(other.lost > 0.1 for other in cheaper)


def test_a_layer_of_low_rank_pays_for_one_of_full_rank():
    x = keras.Input((64,))
    low, full = layers.Dense(64, name="low"), layers.Dense(64, name="full")
    model = keras.Model(x, full(low(x)))
    random = np.random.default_rng(0)
    kernel = random.normal(size=(64, 8)) @ random.normal(size=(8, 64)) / 20
    low.kernel.assign(kernel)
    # Of 8,320 parameters 7,296 are left when only the first is of rank 24.
    rows = factorize(model, params=0.9).factor_report.layers
    assert [row.rank for row in rows] == [8, 0]
    assert rows[0].energy == pytest.approx(1.0)
