"""Shards, builds broken off, and what a build refuses."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import keras_compress as kc

from .teacher_cache_net import CLASSES, build, by_hand, examples, net

# Builds a cache in a process that is killed after 50 of 80 examples.
KILLED = """
import os, signal, sys
import keras, numpy as np, tensorflow as tf
import keras_compress as kc
x = np.load(sys.argv[1])
def batches():
    for i in range(0, 80, 10):
        if i == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        yield x[i : i + 10]
dataset = tf.data.Dataset.from_generator(
    batches, output_signature=tf.TensorSpec((10, 4), tf.float32))
teacher = keras.saving.load_model(sys.argv[2])
kc.TeacherCache.build(teacher, dataset, sys.argv[3], shard_examples=20, verbose=0)
"""


@pytest.fixture
def teacher():
    return net()


@pytest.fixture
def x():
    return examples()


# Builds a cache in a process that is killed after 50 of 80 examples.
KILLED = """
import os, signal, sys
import keras, numpy as np, tensorflow as tf
import keras_compress as kc
x = np.load(sys.argv[1])
def batches():
    for i in range(0, 80, 10):
        if i == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        yield x[i : i + 10]
dataset = tf.data.Dataset.from_generator(
    batches, output_signature=tf.TensorSpec((10, 4), tf.float32))
teacher = keras.saving.load_model(sys.argv[2])
kc.TeacherCache.build(teacher, dataset, sys.argv[3], shard_examples=20, verbose=0)
"""


def count_examples(teacher):
    """The sizes of the batches that pass the teacher from now on."""
    original, sizes = teacher.predict_on_batch, []

    def predict_on_batch(x):
        sizes.append(len(x))
        return original(x)

    teacher.predict_on_batch = predict_on_batch
    return sizes


@pytest.mark.parametrize("name", ["cache.h5", "cache"])
def test_many_shards_give_what_one_gives_in_any_order(teacher, x, tmp_path, name):
    path = tmp_path / name
    cache = build(teacher, x, path, dtype="float32", batch_size=8, shard_examples=20)
    order = np.random.default_rng(1).permutation(80)
    _, scores = by_hand(teacher, x)
    np.testing.assert_allclose(cache.look_up(x[order]), scores[order], atol=1e-5)
    assert len(cache) == 80
    assert os.listdir(tmp_path) == [name]
    if name == "cache":
        shards = ["cache.json", *(f"shard-0000{i}.h5" for i in range(4))]
        assert sorted(os.listdir(path)) == shards


def test_an_example_that_comes_twice_is_stored_once(teacher, x, tmp_path):
    twice = np.concatenate([x[:10], x[:10], x[:30]])
    cache = build(teacher, twice, tmp_path / "c", batch_size=7, shard_examples=14)
    assert len(cache) == 30
    _, scores = by_hand(teacher, x[:30])
    np.testing.assert_allclose(cache.look_up(x[:30]), scores, atol=5e-3)


def test_a_killed_build_goes_on_from_its_finished_shards(teacher, x, tmp_path):
    np.save(tmp_path / "x.npy", x)
    teacher.save(tmp_path / "teacher.keras")
    path = tmp_path / "cache"
    files = [tmp_path / "x.npy", tmp_path / "teacher.keras", path]
    child = subprocess.run([sys.executable, "-c", KILLED, *files], capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr[-2000:]
    assert not path.exists()
    assert len(list((tmp_path / "cache.partial").glob("shard-*.h5"))) == 2
    sizes = count_examples(teacher)
    cache = build(teacher, x, path, batch_size=10, shard_examples=20)
    assert sizes == [10] * 4
    assert len(cache) == 80
    np.testing.assert_allclose(cache.look_up(x), by_hand(teacher, x)[1], atol=5e-3)


def broken_off(teacher, x, path, **options):
    """Leaves a build with its first 40 of 80 examples in shards."""
    bad = x.copy()
    bad[45] *= 1e30
    with pytest.raises(ValueError, match="not finite"):
        build(teacher, bad, path, batch_size=10, shard_examples=20, **options)


def test_a_build_in_another_order_takes_finished_shards_over(teacher, x, tmp_path):
    broken_off(teacher, x, tmp_path / "c.h5")
    sizes = count_examples(teacher)
    cache = build(teacher, x[::-1], tmp_path / "c.h5", batch_size=10)
    assert sum(sizes) == 40
    np.testing.assert_allclose(cache.look_up(x), by_hand(teacher, x)[1], atol=5e-3)
    assert os.listdir(tmp_path) == ["c.h5"]


@pytest.mark.parametrize("change", ["teacher", "dtype", "features"])
def test_shards_of_another_build_are_not_taken_over(teacher, x, tmp_path, change):
    broken_off(teacher, x, tmp_path / "c")
    options = {}
    if change == "dtype":
        options = {"dtype": "float32"}
    if change == "features":
        options = {"feature_layers": ["scores"]}
    if change == "teacher":
        teacher.set_weights([2 * w for w in teacher.get_weights()])
    cache = build(teacher, x, tmp_path / "c", **options)
    np.testing.assert_allclose(cache.look_up(x), by_hand(teacher, x)[1], atol=2e-2)
    assert sorted(os.listdir(tmp_path / "c")) == ["cache.json", "shard-00000.h5"]


def test_a_new_cache_replaces_an_old_folder_and_no_other(teacher, x, tmp_path):
    build(teacher, x, tmp_path / "c", shard_examples=10)
    assert len(build(teacher, x[:5], tmp_path / "c")) == 5
    assert os.listdir(tmp_path) == ["c"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not a folder of a teacher cache"):
        build(teacher, x, tmp_path / "other")
    assert os.listdir(tmp_path / "other") == ["thesis.txt"]


@pytest.mark.parametrize("damage", ["index", "truncated shard", "missing shard"])
def test_a_damaged_folder_is_refused(teacher, x, tmp_path, damage):
    path = tmp_path / "c"
    build(teacher, x, path, batch_size=10, shard_examples=40)
    shard = path / "shard-00001.h5"
    if damage == "index":
        (path / "cache.json").write_text("{")
    elif damage == "missing shard":
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(ValueError, match="not a complete teacher cache"):
        kc.TeacherCache(path)


def test_shards_of_two_teachers_are_refused(teacher, x, tmp_path):
    for name in ("a", "b"):
        build(teacher, x, tmp_path / name, batch_size=10, shard_examples=40)
        teacher.set_weights([2 * w for w in teacher.get_weights()])
    (tmp_path / "a" / "shard-00001.h5").replace(tmp_path / "b" / "shard-00001.h5")
    with pytest.raises(ValueError, match="not of one teacher"):
        kc.TeacherCache(tmp_path / "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": CLASSES}, r"below the number of classes.*top_k=12"),
        ({"shard_examples": 0}, "shard_examples=0"),
        ({"feature_layers": "scores"}, "list of names"),
        ({"feature_layers": ["score"]}, r"no layer 'score'.*'scores'"),
        ({"dtype": "float64"}, "'float64'"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(
    teacher, x, tmp_path, options, message
):
    with pytest.raises(ValueError, match=message):
        build(teacher, x, tmp_path / "c", **options)
    assert os.listdir(tmp_path) == []
