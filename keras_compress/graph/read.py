"""Read a Keras model as one flat list of steps, nested models dissolved."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import keras


@dataclass(frozen=True)
class Ref:
    """A tensor of a graph: only its identity matters."""

    index: int


@dataclass(frozen=True)
class Step:
    """One call of a layer or op.

    `args` and `kwargs` are what it was called with, each tensor replaced by its `Ref`;
    `outputs` are the `Ref`s of its flat outputs. `prefix` is the name of the nested
    model that the operation came from, "" at the top. `weights` are the variables
    whose values a copy of the operation gets, None for the operation's own.
    """

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: tuple[Ref, ...]
    prefix: str = ""
    weights: tuple | None = None

    @property
    def inputs(self) -> tuple[Ref, ...]:
        """The tensors it is called with, in order."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        return tuple(item for item in flat if isinstance(item, Ref))

    @property
    def kind(self) -> str:
        """The class name of its operation, which the tables of this package key on."""
        return type(self.operation).__name__


@dataclass
class Graph:
    """A model as data: inputs, steps in an order that can be run, outputs.

    `tensors` gives the symbolic tensor of each `Ref`; `outputs` has the structure that
    the model returns.
    """

    inputs: list[Ref] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    outputs: object = None
    input_structure: object = None
    tensors: dict[Ref, keras.KerasTensor] = field(default_factory=dict)

    def consumers(self) -> dict[Ref, list[Step]]:
        """Who reads each tensor; a step that reads it twice is listed once."""
        found: dict[Ref, list[Step]] = {ref: [] for ref in self.tensors}
        for step in self.steps:
            for ref in dict.fromkeys(step.inputs):
                found[ref].append(step)
        return found

    def producers(self) -> dict[Ref, Step]:
        """Which step makes each tensor; the model's inputs are not in it."""
        return {ref: step for step in self.steps for ref in step.outputs}

    @property
    def flat_outputs(self) -> list[Ref]:
        """The tensors that the model returns."""
        return keras.tree.flatten(self.outputs)

    def new_ref(self, tensor: keras.KerasTensor) -> Ref:
        """A new tensor of the graph."""
        ref = Ref(len(self.tensors))
        self.tensors[ref] = tensor
        return ref


def read_graph(model: keras.Model) -> Graph:
    """The flat graph of a built Functional or Sequential model.

    The model is only read. Nested Functional and Sequential models are dissolved into
    their steps; every other layer, a wrapper such as Bidirectional too, is one step.

    Raises:
        ValueError: If the model is subclassed or not built.
    """
    check_readable(model)
    graph = Graph()
    refs = {}
    for tensor in model.inputs:
        refs[id(tensor)] = graph.new_ref(tensor)
        graph.inputs.append(refs[id(tensor)])
    _append(graph, model, refs, "")
    graph.input_structure = _input_structure(model)
    graph.outputs = keras.tree.map_structure(
        lambda tensor: refs[id(tensor)], _output_structure(model)
    )
    return graph


def check_readable(model) -> None:
    """ValueError unless `model` is a built Functional or Sequential model."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"`model` must be a keras.Model. Received: model={type(model).__name__}"
        )
    if isinstance(model, keras.Sequential) and not model.built:
        raise ValueError(
            "`model` must be built: give it a keras.Input as first layer, or call it "
            f"once on an example. Received: unbuilt Sequential {model.name!r}"
        )
    if not _is_graph(model):
        raise ValueError(
            "`model` must be Functional or Sequential; the graph of a subclassed model "
            "cannot be read. Build its layers with the functional API: "
            "`keras.Model(inputs, outputs)`. Received: "
            f"{type(model).__name__} {model.name!r}"
        )


def _is_graph(layer) -> bool:
    if isinstance(layer, keras.Sequential):
        return layer.built
    return isinstance(layer, keras.Model) and bool(getattr(layer, "inputs", None))


def _append(graph: Graph, model, refs: dict[int, Ref], prefix: str) -> None:
    """Append the model's steps; `refs` knows its inputs and learns all it computes."""
    for operation, args, kwargs, outputs in _calls(model):
        args, kwargs = keras.tree.map_structure(
            lambda item: refs.get(id(item), item), (args, kwargs)
        )
        if _is_graph(operation):
            _append_nested(graph, operation, (args, kwargs), outputs, refs)
            continue
        made = tuple(graph.new_ref(tensor) for tensor in outputs)
        refs.update({id(t): ref for t, ref in zip(outputs, made, strict=True)})
        graph.steps.append(Step(operation, tuple(args), dict(kwargs), made, prefix))


def _append_nested(graph, nested, arguments, outputs, refs) -> None:
    given = [r for r in keras.tree.flatten(arguments) if isinstance(r, Ref)]
    inner = {id(t): r for t, r in zip(nested.inputs, given, strict=True)}
    _append(graph, nested, inner, nested.name)
    for tensor, made in zip(outputs, nested.outputs, strict=True):
        refs[id(tensor)] = inner[id(made)]


def _calls(model) -> Iterator[tuple]:
    """(operation, args, kwargs, outputs) of each call in order, inputs left out.

    Reads `_nodes_by_depth` and the nodes' `operation`, `arguments` and `outputs`, as
    of Keras 3.15; tests/graph/test_read.py fails if they change.
    """
    functional = model
    if isinstance(model, keras.Sequential):
        functional = keras.Model(model.inputs, model.outputs)
    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                arguments = node.arguments
                yield node.operation, arguments.args, arguments.kwargs, node.outputs


def _input_structure(model):
    return model.inputs if isinstance(model, keras.Sequential) else model.input


def _output_structure(model):
    # A Sequential that was never called has `outputs` but no `output`.
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output
