"""What every combination of techniques promises, of a model or of its int8 file."""

import keras
import numpy as np

import keras_compress as kc
import tflite_export
from tflite_export import flatbuffer

from .composition_techniques import CLUSTERS, SPARSITY

_METHODS = {
    *("fit", "compile", "train_on_batch", "evaluate", "test_on_batch"),
    *("compute_loss", "get_metrics_result", "make_train_function"),
}
# From an op's kernel to the axes that it has in Keras.
_AXES = {
    "CONV_2D": (1, 2, 3, 0),
    "DEPTHWISE_CONV_2D": (1, 2, 3, 0),
    "FULLY_CONNECTED": (1, 0),
}


def kernels_of(model) -> list[np.ndarray]:
    """The kernels of a Keras model, layer by layer."""
    return [np.array(v) for v in model.weights if v.name == "kernel"]


def kernels_in(path) -> list[np.ndarray]:
    """The int8 kernels of a file in the order of its ops, with the axes of Keras."""
    model = flatbuffer.read_model(path)
    [graph] = model.subgraphs
    found = []
    for operator in graph.operators:
        name = flatbuffer.op_name(model, operator)
        if name in _AXES:
            tensor = graph.tensors[operator.inputs[1]]
            data = bytes(model.buffers[tensor.buffer].data)
            stored = np.frombuffer(data, flatbuffer.dtype_name(tensor))
            assert stored.dtype == np.int8
            stored = stored.reshape(flatbuffer.shape_of(tensor))
            found.append(stored.transpose(_AXES[name]))
    return found


def different_values(values) -> int:
    """How many non-zero values there are."""
    return len(np.setdiff1d(values, 0))


def most_in_a_channel(kernel) -> int:
    """The most non-zero values that a channel, with a scale of its own, has."""
    if kernel.shape[-1] == 1:  # depthwise
        kernel = kernel[..., 0]
    return max(map(different_values, np.moveaxis(kernel, -1, 0)))


def check_trained(model, techniques) -> None:
    """Zeros are exact and clusters are clusters in the weights that train."""
    for kernel in kernels_of(model):
        if "pruning" in techniques:
            assert np.count_nonzero(kernel) == round(kernel.size * (1 - SPARSITY))
        if "clustering" in techniques:
            assert 1 < different_values(kernel) <= CLUSTERS


def check_rounded(kernels, trained, techniques) -> None:
    """The same of kernels on the int8 grid, which has a scale for each channel."""
    for kernel, before in zip(kernels, trained, strict=True):
        assert kernel.shape == before.shape
        if "pruning" in techniques:
            assert not kernel[before == 0].any()
            assert np.mean(kernel == 0) >= SPARSITY
        if "clustering" in techniques:
            assert most_in_a_channel(kernel) <= CLUSTERS


def check_file(model, techniques, path, x) -> None:
    """Export the model as a user does; the file keeps every promise."""
    aware = "quantization" in techniques
    options = {} if aware else {"representative_data": x}
    assert not tflite_export.export(model, path, **options).float_ops
    stored = kernels_in(path)
    check_rounded(stored, kernels_of(model), techniques)
    pruned = [op for op in tflite_export.inspect(path).ops if op.kernel_weights]
    zeros = [np.mean(kernel == 0) for kernel in stored]
    assert [op.kernel_zeros / op.kernel_weights for op in pruned] == zeros
    if aware:
        plain = kernels_of(kc.strip(model))
        check_rounded(plain, kernels_of(model), techniques)
        for integers, kernel in zip(stored, plain, strict=True):
            np.testing.assert_array_equal(np.sign(integers), np.sign(kernel))
        check_parity(model, path, x)


def check_parity(model, path, x) -> None:
    """The file computes what the quantization-aware model computes."""
    agreement = tflite_export.compare(model, path, x)
    assert agreement.within_one_step == 1
    assert agreement.equal >= 0.9
    assert agreement.argmax >= 0.97


def check_nothing_left(model) -> None:
    """No callback has left anything on the model or its layers."""
    names = set(vars(model))
    assert not _METHODS & names
    assert not [name for name in names if "keras_compress" in name]
    assert not [v.path for v in model.weights if v.constraint is not None]
    layers = model._flatten_layers(include_self=False)
    for layer in layers:
        assert layer.trainable
        assert not {"call", "__call__"} & set(vars(layer))
        for switch in ("enabled", "update"):
            assert getattr(layer, switch, True)


def check_same_weights(model, other, atol=1e-6) -> None:
    """The two models have the same weights, optimizers left out."""
    for received, expected in zip(model.variables, other.variables, strict=True):
        np.testing.assert_allclose(
            *(keras.ops.convert_to_numpy(v) for v in (received, expected)),
            atol=atol,
            rtol=0,
            err_msg=expected.path,
        )


def check_same_history(received, expected, rel=1e-4) -> None:
    """The last epochs of a fit had these logs."""
    assert set(received) == set(expected)
    for name, values in received.items():
        wanted = expected[name][-len(values) :]
        np.testing.assert_allclose(values, wanted, rtol=rel, err_msg=name)
