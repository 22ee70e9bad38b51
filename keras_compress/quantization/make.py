"""Make the quantization-aware model's layers, as planned."""

import keras

from keras_compress.graph import Builder, Graph, Ref, Step
from keras_compress.graph.rebuild import carry_weights
from keras_compress.quantization.affine import AffineWrapper, FoldedBatchNormalization
from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.plan import Plan
from keras_compress.quantization.wrapper import QuantizeWrapper


class Maker:
    """Makes what takes the place of each step of a planned graph."""

    def __init__(
        self, graph: Graph, planned: Plan, output_names: dict[Ref, str], bits: int
    ) -> None:
        self._planned = planned
        self._rules = iter(planned.rules)
        self.output_names = output_names
        self._bits = bits
        # Outputs of kernels, and the bias and its scale that came with them.
        self._folded: dict[Ref, list] = {}
        self._folds = {
            step.inputs[0]
            for step, rule in zip(graph.steps, planned.rules, strict=True)
            if rule.treatment == "joined" and _folds(graph, step)
        }

    def make_input(self, builder: Builder, ref: Ref, tensor):
        """The input on its grid."""
        return self._ranged(builder, ref, tensor, tensor.name, tensor.dtype, {})

    def make(self, builder: Builder, step: Step) -> list:
        """The step's outputs, on their grids."""
        treatment = next(self._rules).treatment
        name = self._name(step)
        if treatment == "linear":
            outputs = self._linear(builder, step, name)
        elif treatment == "affine":
            scale = self._input_scale(builder, step)
            outputs = self._wrapped(builder, step, name, AffineWrapper, scale)
        elif treatment == "joined" and step.inputs[0] in self._folded:
            bias = self._folded[step.inputs[0]]
            outputs = self._wrapped(builder, step, name, FoldedBatchNormalization, bias)
        else:
            outputs = builder.copy(step, name)
        outputs = keras.tree.flatten(outputs)
        raw = builder.made | dict(zip(step.outputs, outputs, strict=True))
        dtype = getattr(step.operation, "dtype_policy", None)
        cap = _cap(step.operation)
        return [
            self._ranged(builder, ref, tensor, step.operation.name, dtype, raw, cap)
            for ref, tensor in zip(step.outputs, outputs, strict=True)
        ]

    def _name(self, step: Step) -> str | None:
        """The name of the model's output if this makes it; None for the layer's own.

        Where the output's range takes that name, what it ranges over is called raw.
        """
        named = self.output_names.get(step.outputs[0])
        if named is None or step.outputs[0] not in self._planned.ranges:
            return named
        return f"{named}_raw"

    def _linear(self, builder: Builder, step: Step, name: str | None):
        """The output of a layer with a kernel."""
        scale = self._input_scale(builder, step)
        folds = bool(scale) and step.outputs[0] in self._folds
        outputs = self._wrapped(
            builder,
            step,
            name,
            QuantizeWrapper,
            scale,
            {"folds": True} if folds else {},
            weight_bits=self._bits,
        )
        if not folds:
            return outputs
        outputs, *self._folded[step.outputs[0]] = outputs
        return outputs

    def _input_scale(self, builder: Builder, step: Step) -> list:
        """[scale of the int8 inputs], [] if they are not on a known grid."""
        root = self._planned.on_range_of.get(step.inputs[0])
        if root is None or step.kind == "EinsumDense":
            # The bias of an EinsumDense is a sum of its own in the file.
            return []
        group = self._planned.ranges[root].group
        layer = builder.once(("range", group), _no_range)
        tensor = builder.made[step.inputs[0]]
        return [builder.once(("scale", group), lambda: layer(tensor, only_scale=True))]

    def _wrapped(self, builder, step: Step, name, kind, more=(), given=None, **options):
        """The call of the step's layer in a wrapper, `more` tensors after the input."""
        inner = builder.clone(step, name)
        wrapper = builder.once(
            ("wrapper", id(step.operation)),
            lambda: kind(inner, name=inner.name, **options),
        )
        args, kwargs = builder.arguments(step)
        outputs = wrapper(*args, *more, **kwargs, **(given or {}))
        carry_weights(step, inner)
        return outputs

    def _ranged(self, builder, ref: Ref, tensor, name: str, dtype, raw, cap=None):
        found = self._planned.ranges.get(ref)
        if found is None:
            return tensor
        wanted = self.output_names.get(ref) or f"{name}_range"
        layer = builder.once(
            ("range", found.group),
            lambda: FakeQuantize(
                self._planned.sites(found.group),
                found.fixed,
                dtype=dtype,
                name=wanted
                if ref in self.output_names
                else builder.unique_name(wanted),
            ),
        )
        source = {}
        if found.source is not None:
            source = {"source": raw[found.source], "cap": cap}
        site = {"site": found.site} if found.site else {}
        return layer(tensor, **source, **site)


def _folds(graph: Graph, step: Step) -> bool:
    """Whether it normalizes the last axis, that of the kernel's channels."""
    if step.kind != "BatchNormalization":
        return False
    rank = len(graph.tensors[step.inputs[0]].shape)
    return step.operation.axis in (-1, rank - 1)


def _cap(operation: keras.Operation) -> float | None:
    """The most that a ReLU lets through."""
    if isinstance(operation, keras.layers.ReLU):
        return operation.max_value
    activation = getattr(operation, "activation", None)
    names = (getattr(activation, "__name__", ""), type(operation).__name__)
    return 6.0 if {"relu6", "Relu6"}.intersection(names) else None


def _no_range():
    raise RuntimeError("A tensor is read before it has its range.")
