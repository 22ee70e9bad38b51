"""Which tensors get a range, which share one, and what is taken apart before."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_compress.graph import read_graph, rebuild
from keras_compress.quantization.plan import plan
from keras_compress.quantization.split import split

IMAGE = (8, 8, 3)


def conv(**options):
    return layers.Conv2D(4, 3, padding="same", **options)


def norm(**options):
    return layers.BatchNormalization(**options)


def planned(net, shape=IMAGE, included=lambda layer: True, dtype=None):
    """(graph, plan) of the net, a function of its input."""
    inputs = keras.Input(shape, name="x", dtype=dtype)
    graph = split(read_graph(keras.Model(inputs, net(inputs))))
    return graph, plan(graph, included)


def chain(*stack):
    def net(x):
        for layer in stack:
            x = layer(x)
        return x

    return net


def ranged(net, **options):
    """The kinds of the ops whose outputs have a range of any sort, in order."""
    graph, found = planned(net, **options)
    producers = graph.producers()
    assert set(graph.inputs) <= set(found.ranges)
    return [producers[r].kind for r in found.ranges if r in producers]


def treatments(net, **options):
    graph, found = planned(net, **options)
    return [
        (step.kind, rule.treatment)
        for step, rule in zip(graph.steps, found.rules, strict=True)
    ]


@pytest.mark.parametrize(
    ("stack", "expected"),
    [
        ([conv()], ["Conv2D"]),
        ([conv(), layers.ReLU()], ["ReLU"]),
        ([conv(), norm()], ["BatchNormalization"]),
        ([conv(), norm(), layers.ReLU(6.0)], ["ReLU"]),
        ([conv(), norm(), layers.Activation("relu")], ["Activation"]),
        ([conv(activation="relu")], ["Activation"]),
        ([conv(), layers.ReLU(negative_slope=0.1)], ["Conv2D", "ReLU"]),
        ([conv(), layers.ReLU(4.0)], ["Conv2D", "ReLU", "Rescaling"]),
        ([conv(), norm(), norm()], ["BatchNormalization"] * 2),
        ([norm(), layers.ReLU()], ["ReLU"]),
        ([layers.ReLU(), norm()], ["ReLU", "BatchNormalization"]),
        ([conv(activation="gelu")], ["Conv2D", "Activation"]),
        # The kernels fix what comes out of a sigmoid; as an output it stays exact.
        ([conv(activation="sigmoid")], ["Conv2D"]),
        ([conv(activation="tanh"), layers.Flatten()], ["Conv2D", "Activation"]),
        ([layers.Conv2DTranspose(4, 3), layers.ReLU()], ["Conv2DTranspose", "ReLU"]),
        ([layers.Conv2DTranspose(4, 3), norm(), layers.ReLU()], ["ReLU"]),
        (
            [layers.SeparableConv2D(4, 3, activation="relu")],
            ["DepthwiseConv2D", "Activation"],
        ),
        (
            [conv(activation="silu")],
            ["Conv2D", "Activation", "Multiply"],
        ),
        (
            [conv(activation="hard_sigmoid")],
            ["Conv2D", "ReLU", "Rescaling"],
        ),
        ([conv(), layers.MaxPooling2D(), layers.Flatten()], ["Conv2D"]),
        (
            [conv(), layers.GlobalAveragePooling2D()],
            ["Conv2D", "GlobalAveragePooling2D"],
        ),
        ([layers.Rescaling(1 / 255, offset=-0.5)], ["Rescaling"]),
    ],
    ids=lambda value: "-".join(value) if value and isinstance(value[0], str) else "",
)
def test_ranges_stand_where_the_kernels_round(stack, expected):
    copies = [type(layer).from_config(layer.get_config()) for layer in stack]
    assert ranged(chain(*copies)) == expected


def test_a_relu_joins_only_what_it_alone_reads():
    def net(x):
        y = conv()(x)
        return [layers.ReLU()(y), y]

    assert ranged(net) == ["Conv2D", "ReLU"]


def test_the_larger_of_a_tensor_and_zero_is_a_relu():
    assert ranged(lambda x: ops.maximum(conv()(x), 0.0)) == ["ReLU"]
    assert ranged(lambda x: ops.maximum(conv()(x), 0.5)) == ["Conv2D", "Maximum"]


def test_relus_that_compute_the_same_join_what_they_alone_read():
    def net(x):
        y = norm()(conv()(x))
        return [conv()(layers.ReLU()(y)), conv()(layers.ReLU()(y))]

    graph, found = planned(net)
    relus = [step.outputs[0] for step in graph.steps if step.kind == "ReLU"]
    assert [r.kind for r in graph.steps if r.outputs[0] in found.ranges] == [
        *("ReLU", "ReLU", "Conv2D", "Conv2D")
    ]
    assert len({found.ranges[ref].group for ref in relus}) == 1
    assert len({found.ranges[ref].source for ref in relus} - {None}) == 1


@pytest.mark.parametrize(
    "other", [lambda: layers.ReLU(6.0), layers.LeakyReLU, layers.MaxPooling2D]
)
def test_relus_join_nothing_that_other_steps_read_too(other):
    def net(x):
        y = conv()(x)
        return [layers.ReLU()(y), layers.ReLU()(y), other()(y)]

    graph, found = planned(net)
    assert graph.steps[0].outputs[0] in found.ranges


def test_steps_that_compute_the_same_from_the_same_are_on_one_range():
    def net(x):
        y = conv()(x)
        first, second = (layers.Activation("silu")(y) for _ in range(2))
        return [conv()(first), layers.Concatenate()([second, x])]

    graph, found = planned(net)
    products = [step.outputs[0] for step in graph.steps if step.kind == "Multiply"]
    assert len({found.ranges[ref].group for ref in products}) == 1


def test_steps_that_compute_the_same_from_other_tensors_have_ranges_of_their_own():
    def net(x):
        first, second = (layers.Activation("silu")(conv()(x)) for _ in range(2))
        return layers.Add()([first, second])

    graph, found = planned(net)
    products = [step.outputs[0] for step in graph.steps if step.kind == "Multiply"]
    assert len({found.ranges[ref].group for ref in products}) == 2


def test_a_sum_takes_the_relu_after_it():
    def net(x):
        y = conv()(x)
        return ops.relu(y + conv(use_bias=False)(y))

    assert ranged(net) == ["Conv2D", "Conv2D", "Relu"]


def test_the_inputs_of_a_concatenation_share_one_range_with_sites_of_their_own():
    def net(x):
        branches = [conv(activation="relu")(x), layers.MaxPooling2D(1)(x), conv()(x)]
        return conv()(layers.Concatenate()(branches))

    graph, found = planned(net)
    [joined] = [step for step in graph.steps if step.kind == "Concatenate"]
    roots = [joined.inputs[0], graph.inputs[0], joined.inputs[2]]
    assert len({found.ranges[ref].group for ref in roots}) == 1
    assert sorted(found.ranges[ref].site for ref in roots) == [0, 1, 2]
    assert found.sites(found.ranges[roots[0]].group) == 3
    assert joined.outputs[0] not in found.ranges
    last = graph.flat_outputs[0]
    assert found.ranges[last].group != found.ranges[roots[0]].group


def test_concatenations_that_meet_are_on_one_range():
    def net(x):
        first, second, third = (conv()(x) for _ in range(3))
        return [
            layers.Concatenate()([first, second]),
            layers.Concatenate()([second, third]),
        ]

    graph, found = planned(net)
    groups = [
        found.ranges[s.outputs[0]].group for s in graph.steps if s.kind == "Conv2D"
    ]
    assert len(set(groups)) == 1


def test_the_source_of_a_relus_range_is_what_it_is_applied_to():
    graph, found = planned(chain(conv(), norm(), layers.ReLU()))
    _, batch_norm, relu = graph.steps
    assert found.ranges[relu.outputs[0]].source == batch_norm.outputs[0]


def test_integers_get_no_range():
    _, found = planned(
        lambda x: layers.Dense(2)(layers.Embedding(9, 4)(x)), (5,), dtype="int32"
    )
    inputs = keras.Input((5,), dtype="int32")
    graph = read_graph(keras.Model(inputs, layers.Embedding(9, 4)(inputs)))
    assert graph.inputs[0] not in plan(graph, lambda layer: True).ranges
    assert len(found.ranges) == 2


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (layers.LayerNormalization, "no int8 form"),
        (layers.ELU, "no int8 kernel"),
        (lambda: layers.Lambda(lambda x: x), "inside cannot be reached"),
        (lambda: layers.Activation("selu"), "no int8 form of activation 'selu'"),
        (lambda: norm(axis=1), "its axis is 1, not the last"),
        (lambda: layers.ReLU(6.0, negative_slope=0.1), "no op for such a ReLU"),
        (lambda: layers.ReLU(threshold=0.5, negative_slope=0.1), "no op for such a"),
        (lambda: layers.ReLU(4.0, threshold=0.5), "no op for such a ReLU"),
        (lambda: layers.ReLU(0.0), "max_value is not above zero"),
        (lambda: layers.RandomFlip(), "no rule for RandomFlip"),
    ],
)
def test_what_stays_in_float_has_a_reason(net, reason):
    found = planned(chain(conv(), net(), conv()))[1]
    assert found.rules[1].treatment == "float"
    assert reason in found.rules[1].reason


def test_layers_that_are_left_out_stay_in_float_and_say_so():
    rules = planned(
        chain(conv(name="a"), conv(name="b")), included=lambda layer: layer.name == "b"
    )[1].rules
    assert [(rule.treatment, rule.reason) for rule in rules] == [
        ("float", "left out by `layers`"),
        ("linear", ""),
    ]


def test_joined_steps_are_named_so():
    assert treatments(chain(conv(), norm(), layers.ReLU())) == [
        ("Conv2D", "linear"),
        ("BatchNormalization", "joined"),
        ("ReLU", "joined"),
    ]


def test_a_layer_called_twice_is_split_into_the_same_parts():
    def net(x):
        shared = layers.Conv2D(3, 3, padding="same", activation="silu")
        return shared(shared(x))

    graph, _ = planned(net)
    first, second = graph.steps[:3], graph.steps[3:]
    for a, b in zip(first, second, strict=True):
        assert a.operation is b.operation


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, activation="hard_sigmoid"),
        layers.SeparableConv2D(4, 3, depth_multiplier=2, activation="silu"),
        layers.SeparableConv1D(4, 3, strides=2, use_bias=False),
        layers.Dense(4, activation="softmax"),
        layers.EinsumDense("ab,bc->ac", 4, activation="relu", bias_axes="c"),
        layers.Activation("hard_sigmoid"),
        layers.Activation("swish"),
        layers.ReLU(4.0),
        layers.Average(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_the_parts_compute_what_the_layer_computes(layer):
    shapes = {layers.SeparableConv1D: (8, 3), layers.EinsumDense: (3,)}
    shape = shapes.get(type(layer), IMAGE)
    inputs = keras.Input(shape)
    given = [inputs, inputs * 2] if isinstance(layer, layers.Average) else inputs
    model = keras.Model(inputs, type(layer).from_config(layer.get_config())(given))
    graph = split(read_graph(model))
    parts = rebuild(model, graph, lambda b, s: b.copy(s), lambda b, r, tensor: tensor)
    assert len(parts.layers) > len(model.layers)
    x = np.random.default_rng(0).normal(0, 3, (4, *shape)).astype("float32")
    np.testing.assert_allclose(parts(x), model(x), rtol=1e-5, atol=1e-6)
