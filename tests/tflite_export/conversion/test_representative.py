import keras
import numpy as np
import pytest
import tensorflow as tf

from tflite_export.conversion.representative import MAX_EXAMPLES, batches, read_examples

INPUT = [keras.KerasTensor((None, 3), "float32", name="x")]
INDEX = [keras.KerasTensor((None, 3), "int32", name="x")]


def _with(value):
    data = np.ones((4, 3), "float32")
    data[2, 1] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((0, 3)), "at least one"),
        (np.ones((4, 5)), r"\(examples, 3\).*shape=\(4, 5\)"),
        (np.ones(3), r"\(examples, 3\).*shape=\(3,\)"),
        (np.full((4, 3), "a"), "must hold real numbers"),
        (np.ones((4, 3), complex), "must hold real numbers"),
        (_with(np.nan), "must be finite"),
        (_with(np.inf), "must be finite"),
        ({"y": np.ones((4, 3))}, r"inputs are \['x'\]"),
        ("x.npy", "must be a NumPy array"),
        (None, "must be a NumPy array"),
        (np.zeros((4, 3)), "must not be all zero"),
    ],
)
def test_wrong_data_is_named(data, message):
    with pytest.raises(ValueError, match=message):
        read_examples(data, INPUT)


def test_an_empty_stream_is_named():
    for empty in (tf.data.Dataset.range(0), iter([])):
        with pytest.raises(ValueError, match="at least one example"):
            read_examples(empty, INPUT)


def _pairs(x):
    return tf.data.Dataset.from_tensor_slices((x, np.zeros(len(x))))


STREAMS = {
    "batched dataset": lambda x: _pairs(x).batch(3),
    "single dataset": _pairs,
    "dataset of x": tf.data.Dataset.from_tensor_slices,
    "generator of batches": lambda x: (x[i : i + 2] for i in range(0, len(x), 2)),
    "generator of (x, y)": lambda x: ((row, 0) for row in x),
    "function of TFLite's kind": lambda x: lambda: ([row[None]] for row in x),
    "generator of dicts": lambda x: ({"x": row} for row in x),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_every_kind_of_stream_gives_the_same_examples(kind):
    x = np.arange(21).reshape(7, 3).astype("float32")
    np.testing.assert_array_equal(read_examples(STREAMS[kind](x), INPUT)["x"], x)


def test_a_stream_of_a_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"shape=\(4, 5\)"):
        read_examples(iter([np.ones((4, 5))]), INPUT)


def test_an_index_input_takes_whole_numbers_only():
    with pytest.raises(ValueError, match="must hold integers"):
        read_examples(np.ones((4, 3)), INDEX)
    assert read_examples(np.ones((4, 3), "int64"), INDEX)["x"].dtype == np.int32


def test_an_endless_dataset_is_read_up_to_the_limit():
    dataset = tf.data.Dataset.from_tensors(np.ones((7, 3))).repeat()
    found = read_examples(dataset.map(lambda x: (x, x)), INPUT)["x"]
    assert found.shape == (MAX_EXAMPLES, 3)


def test_of_a_long_array_evenly_spaced_examples_are_taken():
    data = np.repeat(np.arange(3000)[:, None], 3, axis=1)
    found = read_examples(data, INPUT)["x"][:, 0]
    assert len(found) == MAX_EXAMPLES
    assert (found[0], found[-1]) == (0, 2999)
    assert set(np.diff(found)) == {10, 11}


def test_the_last_batch_is_filled_from_the_first_examples():
    found = [b["x"].tolist() for b in batches({"x": np.arange(5)}, 3)]
    assert found == [[0, 1, 2], [3, 4, 0]]
    assert [b["x"].tolist() for b in batches({"x": np.arange(2)}, 5)] == [
        [0, 1, 0, 1, 0]
    ]
