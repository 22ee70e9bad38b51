"""`quantize_aware` and `strip`: into quantization-aware training and out of it."""

import dataclasses
from collections.abc import Callable

import keras

from keras_compress.graph import Builder, Ref, Step, read_graph, rebuild
from keras_compress.optimizer_steps import is_int
from keras_compress.quantization.affine import AffineWrapper, FoldedBatchNormalization
from keras_compress.quantization.calibration import calibrate
from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.make import Maker
from keras_compress.quantization.plan import Plan, plan
from keras_compress.quantization.report import QuantizationReport, QuantizedLayer
from keras_compress.quantization.split import split
from keras_compress.quantization.wrapper import QuantizeWrapper


def quantize_aware(
    model: keras.Model,
    *,
    calibration_data=None,
    layers: Callable[[keras.layers.Layer], bool] | None = None,
    weight_bits: int = 8,
    percentile: float | None = None,
) -> keras.Model:
    """A new model that trains with the rounding of an int8 `.tflite` file.

    Kernels are rounded to one symmetric grid per output channel, activations to ranges
    that training moves, where the int8 kernels of LiteRT round them (Jacob et al. 2018,
    1712.05877). The new model has its own weights with the values of the given one,
    which is not changed; nested models are dissolved into one. Compile it, train it
    with a small learning rate, and give it to `tflite_export.export`, which then needs
    no representative data.

    Args:
        model: A built Functional or Sequential model, nested models allowed.
        calibration_data: Examples that set the ranges before training: an array, for
            several inputs a list or dict of arrays, or a `tf.data.Dataset` of batches
            of `x` or `(x, y)`. Without it the first training batches set them.
        layers: Takes a layer with a kernel and says whether it is quantised; the others
            stay in float. Default: all are.
        weight_bits: Width of the integers that kernels are rounded to, 2 to 8. The
            exporter stores them as int8 whatever it is.
        percentile: With calibration data, the percentage of each batch's values that
            its range covers, such as 99.9, averaged over the batches. Default: all
            values of all batches.

    Returns:
        A `keras.Model` with the same inputs, outputs and names, compiled as `model` if
        that was compiled. Its `quantization_report` lists every layer and what is left
        in float and why; `str()` of it is a table.

    Raises:
        ValueError: If the model cannot be read or is quantised already, an option is
            out of range, no layer is quantised, or the data does not fit.

    Example:

    ```python
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 3))
    aware = kc.quantize_aware(model, calibration_data=x)
    aware.compile("sgd", "mse")
    print(aware.quantization_report)
    ```
    """
    _check_options(weight_bits, percentile, calibration_data)
    graph = read_graph(model)
    if any(isinstance(step.operation, _OURS) for step in graph.steps):
        raise ValueError(
            "`model` is quantization-aware already; train it, or take it apart with "
            f"`kc.strip(model)`. Received: model {model.name!r}"
        )
    graph = split(graph)
    planned = plan(graph, layers or (lambda layer: True))
    if all(rule.treatment != "linear" for rule in planned.rules):
        raise ValueError(
            "At least one layer with a kernel must be quantised. Received: model "
            f"{model.name!r}, none of whose layers is, with layers={layers}:\n"
            f"{_report(graph, planned)}"
        )
    maker = Maker(graph, planned, _output_names(model, graph), weight_bits)
    names = maker.output_names.values()
    new = rebuild(model, graph, maker.make, maker.make_input, names)
    if calibration_data is not None:
        calibrate(new, calibration_data, percentile)
    new.quantization_report = _report(graph, planned)
    return new


_WRAPPERS = (QuantizeWrapper, AffineWrapper, FoldedBatchNormalization)
_OURS = (*_WRAPPERS, FakeQuantize)


def _check_options(weight_bits, percentile, calibration_data) -> None:
    if not is_int(weight_bits) or not 2 <= weight_bits <= 8:
        raise ValueError(
            "`weight_bits` must be an int from 2 to 8. Received: "
            f"weight_bits={weight_bits!r}"
        )
    if percentile is None:
        return
    if calibration_data is None:
        raise ValueError(
            "`percentile` needs `calibration_data`. Received: percentile="
            f"{percentile!r}, calibration_data=None"
        )
    if not isinstance(percentile, (int, float)) or not 50 < percentile <= 100:
        raise ValueError(
            "`percentile` must be over 50 and at most 100. Received: "
            f"percentile={percentile!r}"
        )


def _output_names(model, graph) -> dict[Ref, str]:
    # A Sequential has no `output_names`; a Functional model would take the layer's.
    names = getattr(model, "output_names", None) or [model.layers[-1].name]
    named = dict(zip(graph.flat_outputs, names, strict=True))
    # The name of an input that is an output as well is the input's.
    return {ref: name for ref, name in named.items() if ref not in graph.inputs}


def _report(graph, planned: Plan) -> QuantizationReport:
    return QuantizationReport(
        tuple(
            QuantizedLayer(step.operation.name, step.kind, rule.treatment, rule.reason)
            for step, rule in zip(graph.steps, planned.rules, strict=True)
        )
    )


def strip(model: keras.Model) -> keras.Model:
    """The plain Keras model of a quantization-aware one, its kernels on the grid.

    No wrapper and no fake-quant op is left, so the model loads without this package;
    the ranges of the activations are gone with them. Export the quantization-aware
    model where the file shall compute what was trained, the stripped one (with
    representative data) where another exporter needs a plain model.

    Args:
        model: A model made by `quantize_aware`, trained or not; it is not changed.

    Returns:
        A `keras.Model` with the same inputs, outputs and names.

    Raises:
        ValueError: If the model is not quantization-aware.

    Example:

    ```python
    plain = kc.strip(kc.quantize_aware(model))
    plain.save("model.keras")
    ```
    """
    graph = read_graph(model)
    if not any(isinstance(step.operation, _OURS) for step in graph.steps):
        raise ValueError(
            "`model` must be made by `kc.quantize_aware`. Received: model "
            f"{model.name!r}, which has no quantised layer"
        )
    names = _output_names(model, graph)
    inner_names: dict[Ref, str] = {}
    for step in reversed(graph.steps):
        wanted = names.get(step.outputs[0]) or inner_names.get(step.outputs[0])
        if isinstance(step.operation, FakeQuantize) and wanted:
            inner_names[step.inputs[0]] = wanted
    names |= inner_names

    def make(builder: Builder, step: Step):
        operation, name = step.operation, names.get(step.outputs[0])
        if isinstance(operation, FakeQuantize):
            return builder.made[step.inputs[0]]
        if not isinstance(operation, _OURS):
            return builder.copy(step, name)
        inner = _unwrapped(step)
        outputs = builder.copy(inner, name)
        if isinstance(operation, QuantizeWrapper):
            operation.copy_rounded_kernels(builder.clone(inner))
        # A bias and its scale, which some wrappers give besides, are not read.
        return [outputs] + [None] * (len(step.outputs) - 1)

    return rebuild(
        model, graph, make, lambda builder, ref, tensor: tensor, names.values()
    )


def _unwrapped(step: Step) -> Step:
    """The call of the layer in a wrapper, without what the wrapper alone takes."""
    own = ("input_scale", "folds")
    kwargs = {k: v for k, v in step.kwargs.items() if k not in own and v is not None}
    args, operation = step.args[:1], step.operation.layer
    return dataclasses.replace(step, operation=operation, args=args, kwargs=kwargs)
