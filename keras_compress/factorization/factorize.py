"""`factorize`: a plain model whose large kernels are products of smaller ones."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from keras_compress.factorization.budget import Option, by_energy, by_params, total
from keras_compress.factorization.candidates import (
    Candidate,
    find_candidates,
    kernel_of,
)
from keras_compress.factorization.report import FactorizedLayer, FactorReport
from keras_compress.factorization.ways import params_of, two_layers
from keras_compress.graph import Builder, Graph, Step, read_graph, rebuild
from keras_compress.surgery_checks import check_not_quantized, exactly_one_share


def factorize(
    model: keras.Model,
    *,
    params: float | None = None,
    energy: float | None = None,
    layers: Callable | None = None,
    round_to: int = 8,
) -> keras.Model:
    """A new model in which two small layers stand for one with a large kernel.

    The kernel is written as a matrix, of which the largest singular values are kept: no
    product of that rank is nearer to it. The second layer has the name, bias and
    activation of the given one, the first is called `<name>_in`. The new model is plain
    Keras, with weights of its own; train it further to win back the accuracy.

    Args:
        model: A built Functional or Sequential model; it is not changed.
        params: The share of the model's parameters to keep, in (0, 1]. The ranks are
            those with which the product of all kernels' energies is largest.
        energy: The share of the sum of squared singular values that each kernel keeps
            at least, in (0, 1]. With 1 only kernels that are of low rank already are
            replaced. Give exactly one of the two.
        layers: Called with a layer that can be factorised; whether it may be.
        round_to: Ranks are multiples of this. 8 suits LiteRT.

    Returns:
        A compiled model if the given one is. Its `factor_report` tells what became of
        each layer with a kernel, and `str()` of it is a table.

    Raises:
        ValueError: If not exactly one share in (0, 1] is given, the share cannot be
            reached, a kernel is not finite, or the model is subclassed, not built or
            quantization-aware.

    Example:

    >>> import keras
    >>> from keras_compress.factorization.factorize import factorize
    >>> dense = keras.layers.Dense(64, kernel_initializer="ones", name="dense")
    >>> model = keras.Sequential([keras.Input((128,)), dense])
    >>> smaller = factorize(model, energy=0.99)
    >>> [tuple(variable.shape) for variable in smaller.weights]
    [(128, 8), (8, 64), (64,)]
    >>> model.count_params(), smaller.count_params()
    (8256, 1600)

    Source: Denton et al. 2014, 1404.0736; Jaderberg et al. 2014, 1405.3866; Zhang et
    al. 2015, 1505.06798.
    """
    what, share = exactly_one_share(params=params, energy=energy)
    _check_round_to(round_to)
    graph = read_graph(model)
    check_not_quantized(
        model,
        graph,
        "Kernels are factorised before quantization-aware training: factorize first",
    )
    candidates = find_candidates(graph, layers, round_to)
    chosen = _chosen(model, candidates, what, share)
    factors = {
        id(candidate.layer): _factors(candidate, option)
        for candidate, option in chosen
        if option.way
    }
    smaller = _rebuilt(model, graph, factors)
    smaller.factor_report = _report(model, smaller, candidates, factors)
    return smaller


@dataclass(frozen=True, eq=False)
class _Factors:
    """How a layer is replaced, and by which kernels."""

    layer: keras.layers.Layer
    option: Option
    first: np.ndarray
    second: np.ndarray
    full_rank: int


def _check_round_to(round_to) -> None:
    if not isinstance(round_to, int | np.integer) or round_to < 1:
        raise ValueError(
            "`round_to` must be a whole number, 1 or more. Received: "
            f"round_to={round_to!r}"
        )


def _chosen(model, candidates, what: str, share: float) -> list[tuple]:
    """(candidate, option) of each layer that can be factorised."""
    able = [candidate for candidate in candidates if candidate.options]
    layers = [candidate.options for candidate in able]
    if what == "energy":
        return list(zip(able, by_energy(layers, share), strict=True))
    full = model.count_params()
    rest = full - sum(candidate.layer.kernel.shape.num_elements() for candidate in able)
    least = (rest + total([options[0] for options in layers])) / max(full, 1)
    if least > 1.01 * share:
        raise ValueError(
            f"`params`={share} cannot be reached: {least:.3f} is left when every "
            "kernel has the smallest rank that `round_to` allows. Give a larger share, "
            f"or a smaller `round_to`. Whole stay {_blocking(candidates)}"
        )
    return list(zip(able, by_params(layers, round(share * full) - rest), strict=True))


def _blocking(candidates: list[Candidate]) -> str:
    """The largest layer that is left alone for each reason, the largest first."""
    alone = sorted(
        (c for c in candidates if c.reason), key=lambda c: params_of(c.layer)
    )
    largest = {c.reason: c.layer.name for c in alone}
    by_size = dict.fromkeys(c.reason for c in reversed(alone))
    named = [f"{largest[reason]}: {reason}" for reason in by_size]
    return "; ".join(named) or "biases and normalisations"


def _factors(candidate: Candidate, option: Option) -> _Factors:
    way, kernel = option.way, kernel_of(candidate.layer)
    matrix = way.unfold(kernel)
    factors = candidate.spectra[way].factors(matrix, option.rank)
    kernels = way.fold(*factors, kernel.shape)
    return _Factors(candidate.layer, option, *kernels, min(matrix.shape))


def _rebuilt(model, graph: Graph, factors: dict[int, _Factors]) -> keras.Model:
    taken = {step.operation.name for step in graph.steps}
    names = {key: _free_name(found.layer.name, taken) for key, found in factors.items()}

    def make(builder: Builder, step: Step):
        key = id(step.operation)
        if key not in factors:
            return builder.copy(step)
        return _replaced(builder, step, factors[key], names[key])

    return rebuild(
        model, graph, make, lambda builder, ref, tensor: tensor, names.values()
    )


def _free_name(name: str, taken: set[str]) -> str:
    """`name_in`, or that with a number, if a layer of the model has it."""
    wanted, number = f"{name}_in", 1
    while wanted in taken:
        number += 1
        wanted = f"{name}_in_{number}"
    taken.add(wanted)
    return wanted


def _replaced(builder: Builder, step: Step, found: _Factors, name_of_first: str):
    """The outputs of the two layers; a layer called twice is made once."""
    layer, option = step.operation, found.option

    def make():
        names = (name_of_first, builder.unique_name(layer.name, step.prefix))
        return two_layers(layer, option.way, option.rank, names)

    first, second = builder.once(id(layer), make)
    args, kwargs = builder.arguments(step)
    outputs = second(first(*args, **kwargs))
    first.kernel.assign(found.first)
    second.kernel.assign(found.second)
    if second.bias is not None:
        second.bias.assign(layer.bias)
    return outputs


def _report(model, smaller, candidates, factors) -> FactorReport:
    rows = []
    for candidate in candidates:
        layer, key = candidate.layer, id(candidate.layer)
        before, name, kind = params_of(layer), layer.name, type(layer).__name__
        if key not in factors:
            reason = candidate.reason or "no smaller rank keeps as much energy"
            rows.append(FactorizedLayer(name, kind, before, before, reason=reason))
            continue
        found = factors[key]
        option = found.option
        after = before - found.layer.kernel.shape.num_elements() + option.params
        rows.append(
            FactorizedLayer(
                *(name, kind, before, after, option.way.name, option.rank),
                *(found.full_rank, 1 - option.lost),
            )
        )
    return FactorReport(tuple(rows), (model.count_params(), smaller.count_params()))
