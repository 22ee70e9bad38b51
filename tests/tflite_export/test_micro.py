import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

import tflite_export
from tflite_export import micro
from tflite_export.micro import verify_micro

_ANSWER = """\
import sys
import numpy as np

reference = np.array([[[1, 2]], [[3, 4]], [[5, 100]]], "{dtype}")
micro = np.array({micro}, "{dtype}")
np.savez(sys.argv[3], arena_bytes=64, micro_0=micro, reference_0=reference)
"""

_RUN = """\
import sys
import numpy as np
from tflite_micro import runtime

interpreter = runtime.Interpreter.from_file(sys.argv[1], arena_size=int(sys.argv[2]))
interpreter.set_input(np.zeros((1, 8, 8, 3), "int8"), 0)
interpreter.invoke()
assert interpreter.get_output(0).shape == (1, 4)
"""


@pytest.fixture(scope="module")
def conv_file(x, tmp_path_factory):
    """An int8 file without a Dense layer, which LiteRT rounds in its own way."""
    layers = [
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Softmax(),
    ]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    path = tmp_path_factory.mktemp("conv") / "m.tflite"
    tflite_export.export(
        model, path, representative_data=x, input_dtype="int8", output_dtype="int8"
    )
    return path


@pytest.fixture(scope="module")
def smallest(conv_file, x):
    return verify_micro(conv_file, x[:1]).arena_bytes


def _runs_in(path, arena_bytes):
    """Whether tflite-micro runs the file in such an arena, or dies of it."""
    command = [sys.executable, "-c", _RUN, str(path), str(arena_bytes)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_convolutions_are_equal_bit_for_bit(conv_file, x):
    check = verify_micro(conv_file, x)
    assert check.equal
    assert (check.different, check.values, check.max_difference) == (0, 50 * 4, 0)
    assert check.examples == 50
    assert "bit for bit equal" in str(check)
    assert f"arena {check.arena_bytes:,} bytes" in str(check)
    with pytest.raises(dataclasses.FrozenInstanceError):
        check.equal = False


def test_the_arena_is_the_smallest_that_works(conv_file, smallest):
    assert smallest % 16 == 0
    assert _runs_in(conv_file, smallest)
    assert not _runs_in(conv_file, smallest - 16)


def test_an_arena_may_be_given_and_must_be_large_enough(conv_file, smallest, x):
    for arena_bytes in (smallest, 100_000):
        check = verify_micro(conv_file, x[:2], arena_bytes=arena_bytes)
        assert (check.equal, check.arena_bytes) == (True, smallest)
    # Far too small an arena ends tflite-micro's process, not this one.
    for arena_bytes in (smallest - 16, 32):
        with pytest.raises(ValueError, match=f"at least {smallest} for this file"):
            verify_micro(conv_file, x[:2], arena_bytes=arena_bytes)


@pytest.mark.parametrize("arena_bytes", [0, -1, 2.0, True, "64k", 1 << 31])
def test_an_arena_that_is_no_size_is_refused(conv_file, x, arena_bytes):
    with pytest.raises(ValueError, match="`arena_bytes` must be a positive int"):
        verify_micro(conv_file, x, arena_bytes=arena_bytes)


def test_an_arena_of_more_than_64_kib_is_found(tmp_path):
    shape = (160, 160, 3)
    model = keras.Sequential([keras.Input(shape), keras.layers.MaxPooling2D(2)])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    check = verify_micro(path, np.random.default_rng(0).normal(size=(1, *shape)))
    # Input and output live at the same time, with less than 4 KiB around them.
    tensors = 4 * 3 * (160 * 160 + 80 * 80)
    assert check.equal
    assert tensors < check.arena_bytes < tensors + 4096


def test_a_dense_layer_seldom_differs_and_by_one_step(tmp_path):
    """LiteRT rounds its sums once, tflite-micro twice: next to half a step it shows."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    x = np.random.default_rng(0).normal(size=(400, 8))
    path = tmp_path / "m.tflite"
    tflite_export.export(
        model, path, representative_data=x, input_dtype="int8", output_dtype="int8"
    )
    check = verify_micro(path, x)
    assert (check.equal, check.max_difference, check.values) == (False, 1, 2000)
    assert 0 < check.different < 40


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int8", [[[1, 2]], [[3, 4]], [[9, 9]]], (True, 0, 0)),
        ("int8", [[[1, 0]], [[4, 4]], [[9, 9]]], (False, 2, 2)),
        ("int8", [[[1, 2]], [[3, -128]], [[9, 9]]], (False, 1, 132)),
        ("float32", [[[1, 2.5]], [[3, 4]], [[9, 9]]], (False, 1, 0.5)),
        ("float32", [[[1, 2]], [[3, np.nan]], [[9, 9]]], (False, 1, np.inf)),
    ],
)
def test_differences_are_counted_over_the_examples_given(
    conv_file, x, tmp_path, monkeypatch, dtype, values, expected
):
    # Of the three runs the last stands for the filling of a batch.
    script = tmp_path / "answer.py"
    text = str(values).replace("nan", "np.nan")
    script.write_text(_ANSWER.format(dtype=dtype, micro=text))
    monkeypatch.setattr(micro, "_SCRIPT", str(script))
    check = verify_micro(conv_file, x[:2])
    assert (check.equal, check.different, check.max_difference) == expected
    assert (check.values, check.examples, check.arena_bytes) == (4, 2, 64)
    if not check.equal:
        assert f"{check.different} of 4 values differ" in str(check)


def test_inputs_are_quantised_and_batches_filled(x, tmp_path, monkeypatch):
    """What the child process is given, worked out by hand."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU()])
    path = tmp_path / "m.tflite"
    options = {"input_dtype": "int8", "batch_size": 4}
    tflite_export.export(model, path, representative_data=x, **options)
    given = []
    monkeypatch.setattr(
        micro, "_run_both", lambda path, runs, arena: given.extend(runs) or {}
    )
    with pytest.raises(KeyError, match="arena_bytes"):
        verify_micro(path, x[:6])
    (tensor,) = [t for t in tflite_export.inspect(path).tensors if "serving" in t.name]
    scale, zero = tensor.scale[0], tensor.zero_point[0]
    filled = np.concatenate([x[:6], np.zeros((2, 8, 8, 3))])
    expected = np.clip(np.round(filled / scale) + zero, -128, 127)
    assert given[0].dtype == np.int8
    np.testing.assert_array_equal(given[0], expected.reshape(2, 4, 8, 8, 3))


def test_several_inputs_and_outputs_are_taken(tmp_path):
    zeta, alpha = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    outputs = [keras.ops.relu(zeta), keras.layers.Add()([zeta, alpha])]
    model = keras.Model([zeta, alpha], outputs)
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    random = np.random.default_rng(0)
    data = {name: random.normal(size=(3, 4)) for name in ("alpha", "zeta")}
    check = verify_micro(path, data)
    assert (check.equal, check.examples, check.values) == (True, 3, 2 * 3 * 4)
    assert verify_micro(path, [data["zeta"], data["alpha"]]) == check


def test_an_op_that_tflite_micro_lacks_is_named_with_its_layer(tmp_path):
    layers = [keras.layers.Activation("gelu", name="bend"), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none")
    with pytest.raises(ValueError, match=r"does not have the op GELU.*GELU in bend$"):
        verify_micro(path, np.ones((1, 8)))


def test_a_type_that_tflite_micro_lacks_is_reported(x, tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(64, 3)])
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="float16")
    with pytest.raises(ValueError, match=r"tflite-micro can run.*DEQUANTIZE"):
        verify_micro(path, x[:1])


def test_a_batch_that_is_not_fixed_is_refused(model, x, tmp_path):
    path = tmp_path / "m.tflite"
    tflite_export.export(model, path, quantization="none", batch_size=None)
    with pytest.raises(ValueError, match=r"fixed batch: batch_size=1.*\[-1, 8, 8, 3\]"):
        verify_micro(path, x)


@pytest.mark.parametrize("data", [np.ones((4, 8, 8)), np.ones((0, 8, 8, 3)), None])
def test_data_that_does_not_fit_is_refused(conv_file, data):
    with pytest.raises(ValueError, match="`x`"):
        verify_micro(conv_file, data)


def test_a_file_that_is_no_tflite_is_refused(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match="must be a valid"):
        verify_micro(path, np.ones((1, 8)))


def test_a_process_that_dies_is_reported(conv_file, x, tmp_path, monkeypatch):
    script = tmp_path / "die.py"
    script.write_text("import os; print('the kernels', flush=True); os.abort()")
    monkeypatch.setattr(micro, "_SCRIPT", str(script))
    with pytest.raises(ValueError, match=r"that the kernels can run.*signal 6"):
        verify_micro(conv_file, x)


def test_without_tflite_micro_the_error_says_what_to_install(conv_file, x, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(ImportError, match=r'pip install "keras_compress\[micro\]"'):
        verify_micro(conv_file, x)
