"""The order of callbacks does not matter, and a fit that stops leaves nothing.

Steps run eagerly: to trace each fit anew would take most of the time.
"""

import itertools

import pytest

from .composition_checks import (
    check_nothing_left,
    check_same_history,
    check_same_weights,
    check_trained,
    kernels_of,
)
from .composition_techniques import (
    CALLBACKS,
    StopBefore,
    callbacks,
    combinations,
    fit,
    name_of,
    student,
)


def orders_of(techniques):
    return list(itertools.permutations(techniques))


def trained(order):
    model = student(order, run_eagerly=True)
    history = fit(model, *callbacks(order), epochs=2)
    check_nothing_left(model)
    return model, history


def check_orders(orders):
    model, history = trained(orders[0])
    check_trained(model, orders[0])
    for order in orders[1:]:
        other, received = trained(order)
        check_same_history(received, history)
        check_same_weights(other, model)


@pytest.mark.slow
@pytest.mark.parametrize("techniques", combinations([2], CALLBACKS), ids=name_of)
def test_a_pair_gives_the_same_weights_in_either_order(techniques):
    check_orders(orders_of(techniques))


@pytest.mark.slow
@pytest.mark.parametrize("last", CALLBACKS)
def test_all_callbacks_give_the_same_weights_in_any_order(last):
    """Each order that ends in one callback, beside the order of the others' tests."""
    others = [technique for technique in CALLBACKS if technique != last]
    check_orders([CALLBACKS, *((*order, last) for order in orders_of(others))])


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_fit_that_another_callback_ends_leaves_nothing_to_the_next(epoch, order):
    model = student(CALLBACKS, run_eagerly=True)
    with pytest.raises(KeyboardInterrupt):
        fit(model, *callbacks(CALLBACKS)[::order], StopBefore(epoch))
    history = fit(model, epochs=1)
    assert set(history) == {"loss"}
    check_nothing_left(model)
    for kernel in kernels_of(model):
        assert (kernel != 0).mean() > 0.9
