"""Decide for each step of a graph what takes its place, before anything is built."""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from keras_compress.graph import Graph, Ref, Step
from keras_compress.quantization.ranges import Rule, is_of_keras, rule_of

_FUSES_RELU = ("linear", "affine", "add")


@dataclass
class Range:
    """The range of one tensor.

    Tensors whose `group` is the same have one range together, each with a `site` of
    its own in it. `source` is the tensor before the activation function, if there is
    one; `fixed` the (minimum, maximum) of a range that is not learned.
    """

    group: Ref
    site: int = 0
    source: Ref | None = None
    fixed: tuple[float, float] | None = None


@dataclass
class Plan:
    """The rule of each step, in order, and the range of each tensor that gets one.

    `on_range_of` says for every tensor on a grid whose range that is: its own, or that
    of the tensor that it was pooled, reshaped or picked from.
    """

    rules: list[Rule] = field(default_factory=list)
    ranges: dict[Ref, Range] = field(default_factory=dict)
    on_range_of: dict[Ref, Ref] = field(default_factory=dict)

    def sites(self, group: Ref) -> int:
        """How many tensors have this range together."""
        return sum(found.group == group for found in self.ranges.values())


def plan(graph: Graph, included: Callable) -> Plan:
    """Plan the quantisation of a graph whose layers were split.

    Args:
        graph: The graph.
        included: Takes a layer with a kernel and says whether it is quantised.
    """
    planner = _Planner(graph, included)
    for ref in graph.inputs:
        planner.give_range(ref)
    for step in graph.steps:
        planner.take(step)
    return planner.finished()


class _Planner:
    """Walks the steps in order; `scale` knows whose range each tensor is on."""

    def __init__(self, graph: Graph, included: Callable) -> None:
        self._graph = graph
        self._included = included
        self._consumers = graph.consumers()
        self._outputs = set(graph.flat_outputs)
        self._plan = Plan()
        self._joined: dict[int, Rule] = {}
        self._scale: dict[Ref, Ref] = {}
        self._merged: dict[Ref, Ref] = {}
        self._seen: dict[tuple, Step] = {}
        self._same: dict[Ref, Ref] = {}
        self._joinable = self._joinable_batch_norms()

    def take(self, step: Step) -> None:
        rule = self._joined.get(id(step)) or rule_of(step)
        if rule.treatment == "linear" and not self._included(step.operation):
            rule = Rule("float", "left out by `layers`")
        self._plan.rules.append(rule)
        if rule.treatment in ("same", "rounded"):
            self._pass_scale(step, rounded=rule.treatment == "rounded")
        elif rule.treatment == "shared":
            self._share(step)
        elif rule.treatment == "fixed":
            for ref in step.outputs:
                # The model's own outputs keep their gradient everywhere.
                if ref not in self._outputs:
                    self.give_range(ref, fixed=rule.range)
        elif rule.treatment != "joined":
            self._new_range(step, rule)
        if rule.treatment != "float":
            self._join_twin(step)

    def give_range(self, ref: Ref, **details) -> None:
        """A range of its own for a float tensor."""
        if "float" in self._graph.tensors[ref].dtype:
            self._plan.ranges[ref] = Range(ref, **details)
            self._scale[ref] = ref

    def _new_range(self, step: Step, rule: Rule) -> None:
        """A range after the step and those that the kernels compute along with it."""
        last, source = step, None
        if rule.treatment == "relu":
            [source] = step.inputs
        follower, *_ = self._consumers_as_one(step)
        if rule.treatment == "linear" and id(follower) in self._joinable:
            last = self._join(follower)
        # A transposed convolution takes a ReLU only with a BatchNormalization between.
        takes_relu = last is not step or not step.kind.endswith("Transpose")
        fuses = takes_relu and rule.treatment in _FUSES_RELU
        relus = self._consumers_as_one(last)
        if fuses and _treatment(relus[0]) == "relu":
            [source] = last.outputs
            made = [ref for relu in relus for ref in self._join(relu).outputs]
        else:
            made = last.outputs
        for ref in made:
            self.give_range(ref, source=source)

    def _joinable_batch_norms(self) -> set[int]:
        """Ids of the BatchNormalization steps that are computed along with a kernel.

        Of a layer called several times either all are or none is: it trains as one.
        """
        calls: dict[int, set[int]] = {}
        followers = set()
        for step in self._graph.steps:
            if _is_batch_norm(step):
                calls.setdefault(id(step.operation), set()).add(id(step))
            elif _treatment(step) == "linear" and self._included(step.operation):
                follower, *others = self._consumers_as_one(step)
                followers |= set() if others else {id(follower)}
        return set().union(*(ids for ids in calls.values() if ids <= followers))

    def _join_twin(self, step: Step) -> None:
        """One range for steps that compute the same: the converter makes them one."""
        twin = self._seen.setdefault(self._what_it_computes(step), step)
        for ref, other in zip(step.outputs, twin.outputs, strict=True):
            self._same[ref] = other
            if ref in self._plan.ranges and other in self._plan.ranges:
                self._merge(ref, other)

    def _are_twins(self, step: Step, other: Step) -> bool:
        same_kind = step.kind == other.kind and _treatment(step) != "float"
        return same_kind and (
            self._what_it_computes(step) == self._what_it_computes(other)
        )

    def _what_it_computes(self, step: Step) -> tuple:
        """Equal for two steps only if they give the same outputs."""
        operation = step.operation
        given = keras.tree.map_structure(
            lambda item: self._same.get(item, item) if isinstance(item, Ref) else item,
            (step.args, step.kwargs),
        )
        if getattr(operation, "variables", ()) or not is_of_keras(operation):
            return (id(operation), repr(given))
        config = {k: v for k, v in operation.get_config().items() if k != "name"}
        return (step.kind, repr(config), repr(given))

    def _join(self, step: Step) -> Step:
        self._joined[id(step)] = Rule("joined")
        return step

    def _pass_scale(self, step: Step, rounded: bool) -> None:
        known = [self._scale[ref] for ref in step.inputs if ref in self._scale]
        for ref in step.outputs:
            if not known:
                if not self._reads_floats(step):
                    self.give_range(ref)
                continue
            if rounded and self._plan.ranges[known[0]].fixed is None:
                self.give_range(ref)
                self._merge(ref, known[0])
            else:
                self._scale[ref] = known[0]

    def _reads_floats(self, step: Step) -> bool:
        return any("float" in self._graph.tensors[ref].dtype for ref in step.inputs)

    def _share(self, step: Step) -> None:
        """One range for the step's inputs, back to where they got theirs."""
        roots = []
        for ref in step.inputs:
            if ref not in self._scale:
                self.give_range(ref)
            root = self._scale.get(ref, ref)
            if root in self._plan.ranges and self._plan.ranges[root].fixed is not None:
                self._unfix(root)
            roots.append(root)
        for root in roots[1:]:
            self._merge(root, roots[0])
        for ref in step.outputs:
            self._scale[ref] = roots[0]

    def _unfix(self, root: Ref) -> None:
        """A learned range for a tensor that has a fixed one, and for its twins."""
        group = self._find(root)
        for ref in [ref for ref in self._plan.ranges if self._find(ref) == group]:
            self.give_range(ref)

    def _merge(self, root: Ref, other: Ref) -> None:
        root, other = self._find(root), self._find(other)
        if root != other:
            self._merged[root] = other

    def _find(self, root: Ref) -> Ref:
        while root in self._merged:
            root = self._merged[root]
        return root

    def finished(self) -> Plan:
        """The plan, with groups and sites filled in."""
        self._plan.on_range_of = self._scale
        sites: dict[Ref, int] = {}
        for ref, found in self._plan.ranges.items():
            found.group = self._find(ref)
            found.site = sites.get(found.group, 0)
            sites[found.group] = found.site + 1
        return self._plan

    def _consumers_as_one(self, step: Step) -> list[Step | None]:
        """The one step that reads what this one makes, and those that compute the same.

        [None] if the steps that read it differ, or if the model returns it.
        """
        found = [reader for ref in step.outputs for reader in self._consumers[ref]]
        if not found or self._outputs.intersection(step.outputs):
            return [None]
        first, *others = found
        same = all(self._are_twins(first, other) for other in others)
        return found if same else [None]


def _treatment(step: Step | None) -> str:
    return "" if step is None else rule_of(step).treatment


def _is_batch_norm(step: Step | None) -> bool:
    return _treatment(step) == "affine" and step.kind == "BatchNormalization"
