"""A model is read as one flat list of steps in an order that can be run."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_compress.graph import Ref, read_graph


def kinds(model):
    return [step.kind for step in read_graph(model).steps]


def assert_runnable(graph):
    """Every tensor is made once, before anyone reads it."""
    known = set(graph.inputs)
    for step in graph.steps:
        assert step.inputs and set(step.inputs) <= known
        assert not known & set(step.outputs)
        known |= set(step.outputs)
    assert set(graph.flat_outputs) <= known
    assert known == set(graph.tensors)


def test_a_chain_is_read_in_order():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.ReLU(), layers.Flatten()]
    )
    graph = read_graph(model)
    assert_runnable(graph)
    assert [step.kind for step in graph.steps] == ["Conv2D", "ReLU", "Flatten"]
    assert graph.steps[0].inputs == tuple(graph.inputs)
    assert [graph.tensors[step.outputs[0]].shape for step in graph.steps] == [
        (None, 6, 6, 4),
        (None, 6, 6, 4),
        (None, 144),
    ]
    assert graph.outputs == graph.steps[-1].outputs[0]
    assert graph.steps[0].operation is model.layers[0]


def test_a_residual_block_names_the_tensors_it_adds():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    y = layers.Dense(4, name="second")(x)
    graph = read_graph(keras.Model(inputs, layers.Add()([y, x])))
    assert_runnable(graph)
    first, second, add = graph.steps
    assert add.args == ([second.outputs[0], first.outputs[0]],)
    assert graph.consumers()[first.outputs[0]] == [second, add]
    assert graph.producers() == {s.outputs[0]: s for s in graph.steps}


def test_a_step_that_reads_a_tensor_twice_is_one_consumer():
    inputs = keras.Input((4,))
    graph = read_graph(keras.Model(inputs, inputs * inputs))
    [step] = graph.steps
    assert step.inputs == (graph.inputs[0],) * 2
    assert graph.consumers()[graph.inputs[0]] == [step]


def test_nested_models_are_dissolved_and_give_their_name():
    inputs = keras.Input((4,))
    inner = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="a"), layers.ReLU(name="b")],
        name="inner",
    )
    middle_input = keras.Input((4,))
    middle = keras.Model(
        middle_input, layers.Dense(4, name="c")(inner(middle_input)), name="middle"
    )
    model = keras.Model(inputs, layers.Dense(1, name="d")(middle(inputs)))
    graph = read_graph(model)
    assert_runnable(graph)
    assert [(step.operation.name, step.prefix) for step in graph.steps] == [
        ("a", "inner"),
        ("b", "inner"),
        ("c", "middle"),
        ("d", ""),
    ]


def test_a_nested_model_called_twice_is_two_runs_of_the_same_layers():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.ReLU()])
    graph = read_graph(keras.Model(inputs, inner(inner(inputs))))
    assert_runnable(graph)
    assert [step.kind for step in graph.steps] == ["Dense", "ReLU"] * 2
    assert graph.steps[0].operation is graph.steps[2].operation
    assert graph.steps[2].inputs == graph.steps[1].outputs


def test_inputs_of_a_nested_model_are_told_apart():
    a, b = keras.Input((2,), name="zeta"), keras.Input((2,), name="alpha")
    inner = keras.Model([a, b], ops.subtract(a, b))
    first, second = keras.Input((2,)), keras.Input((2,))
    graph = read_graph(keras.Model([first, second], inner([second, first])))
    [step] = graph.steps
    assert step.inputs == (graph.inputs[1], graph.inputs[0])


def test_named_inputs_of_a_nested_model_are_told_apart():
    a, b = keras.Input((2,), name="zeta"), keras.Input((2,), name="alpha")
    inner = keras.Model({"zeta": a, "alpha": b}, ops.subtract(a, b))
    first, second = keras.Input((2,)), keras.Input((2,))
    nested = inner({"zeta": first, "alpha": second})
    graph = read_graph(keras.Model([first, second], nested))
    [step] = graph.steps
    assert step.inputs == tuple(graph.inputs)


def test_outputs_keep_their_structure():
    inputs = keras.Input((4,))
    x = layers.Dense(2)(inputs)
    graph = read_graph(keras.Model(inputs, {"b": (x, inputs), "a": layers.ReLU()(x)}))
    assert_runnable(graph)
    dense, relu = graph.steps
    assert graph.outputs == {
        "b": (dense.outputs[0], graph.inputs[0]),
        "a": relu.outputs[0],
    }


def test_operators_are_steps_with_their_constants():
    inputs = keras.Input((4,))
    y = ops.concatenate([inputs + 1.0, inputs[:, :2]], axis=-1)
    graph = read_graph(keras.Model(inputs, ops.relu(y)))
    assert_runnable(graph)
    assert sorted(step.kind for step in graph.steps) == [
        "Add",
        "Concatenate",
        "GetItem",
        "Relu",
    ]
    [add] = [step for step in graph.steps if step.kind == "Add"]
    assert [item for item in add.args if not isinstance(item, Ref)] == [1.0]


def test_an_op_with_several_outputs_makes_several_tensors():
    inputs = keras.Input((4,))
    first, second = ops.split(inputs, 2, axis=-1)
    graph = read_graph(keras.Model(inputs, second - first))
    split, subtract = graph.steps
    assert len(split.outputs) == 2
    assert subtract.inputs == (split.outputs[1], split.outputs[0])


def test_a_wrapper_is_one_step():
    inputs = keras.Input((6, 4))
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(inputs)
    model = keras.Model(inputs, layers.TimeDistributed(layers.Dense(2))(x))
    assert kinds(model) == ["Bidirectional", "TimeDistributed"]


def test_a_part_of_a_larger_model_is_read_without_the_rest():
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(inputs)
    y = layers.Dense(4, name="second")(x)
    keras.Model(inputs, layers.Dense(1)(y))
    graph = read_graph(keras.Model(x, y))
    assert_runnable(graph)
    assert [step.operation.name for step in graph.steps] == ["second"]


def test_keras_still_has_what_is_read_of_its_nodes():
    """`graph/read.py` uses these; Keras promises none of them."""
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True))
    by_depth = model._nodes_by_depth
    assert sorted(by_depth) == [0, 1]
    [first], [second] = by_depth[1], by_depth[0]
    assert first.is_input and not second.is_input
    assert second.operation is model.layers[-1]
    assert second.arguments.args == (inputs,)
    assert second.arguments.kwargs == {"training": True}
    assert [id(t) for t in second.outputs] == [id(model.output)]
    assert keras.Sequential([keras.Input((4,)), layers.ReLU()]).outputs


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_a_subclassed_model_is_refused_with_the_remedy():
    model = Subclassed()
    model(np.ones((1, 3), "float32"))
    with pytest.raises(ValueError, match=r"keras.Model\(inputs, outputs\).*Subclassed"):
        read_graph(model)


def test_a_subclassed_model_inside_is_one_step():
    inputs = keras.Input((3,))
    assert kinds(keras.Model(inputs, Subclassed()(inputs))) == ["Subclassed"]


def test_an_unbuilt_sequential_model_is_refused_with_the_remedy():
    model = keras.Sequential([layers.Dense(2)], name="empty")
    with pytest.raises(ValueError, match=r"keras.Input.*unbuilt Sequential 'empty'"):
        read_graph(model)


@pytest.mark.parametrize("model", [layers.Dense(2), None, "m.keras"])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ValueError, match=f"keras.Model. .*{type(model).__name__}"):
        read_graph(model)
