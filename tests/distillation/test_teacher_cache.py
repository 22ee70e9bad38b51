import os

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc

CLASSES = 3


def teacher_model(seed=3):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES)])


def student_model(**options):
    keras.utils.set_random_seed(9)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **options)
    return model


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(20, 4)).astype("float32")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "teacher.h5"


def build(x, path, **options):
    return kc.TeacherCache.build(teacher_model(), x, path, verbose=0, **options)


def test_outputs_are_found_again_in_any_order(x, path):
    cache = build(x, path, dtype="float32", batch_size=7)
    order = np.random.default_rng(1).permutation(20)
    kernel, bias = teacher_model().get_weights()
    np.testing.assert_allclose(cache.look_up(x[order]), x[order] @ kernel + bias, 1e-5)


def test_float16_keeps_three_digits_in_half_the_bytes(x, path):
    cache = build(x, path)
    kernel, bias = teacher_model().get_weights()
    np.testing.assert_allclose(cache.look_up(x), x @ kernel + bias, 1e-3, 1e-3)
    with h5py.File(path) as file:
        assert file["outputs"].dtype == np.float16


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_from_the_cache_equals_training_from_the_teacher(x, path, jit_compile):
    y = np.zeros(20, "int32")
    students = [student_model(jit_compile=jit_compile) for _ in range(2)]
    teachers = [teacher_model(), build(x, path, dtype="float32")]
    for student, teacher in zip(students, teachers, strict=True):
        keras.utils.set_random_seed(0)
        student.fit(
            x,
            y,
            epochs=3,
            batch_size=8,
            verbose=0,
            callbacks=[kc.Distillation(teacher)],
        )
        assert student.jit_compile is jit_compile
    for a, b in zip(*(s.get_weights() for s in students), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_an_example_never_seen_is_a_clear_error_and_restores_the_student(x, path):
    cache, student = build(x, path), student_model()
    augmented = x.copy()
    augmented[3, 1] += 1e-3
    with pytest.raises(ValueError, match="holds no teacher output for 1 of 20"):
        student.fit(
            augmented,
            np.zeros(20),
            batch_size=20,
            verbose=0,
            callbacks=[kc.Distillation(cache)],
        )
    assert "compute_loss" not in vars(student)


def test_several_inputs_are_fingerprinted_together(path):
    a, b = keras.Input((2,), name="a"), keras.Input((1,), name="b", dtype="int32")
    merged = keras.layers.Concatenate()([a, keras.ops.cast(b, "float32")])
    teacher = keras.Model({"a": a, "b": b}, keras.layers.Dense(CLASSES)(merged))
    data = {"a": np.zeros((2, 2), "float32"), "b": np.array([[0], [1]], "int32")}
    cache = kc.TeacherCache.build(teacher, data, path, dtype="float32", verbose=0)
    assert len(cache) == 2
    np.testing.assert_allclose(
        cache.look_up(data), teacher.predict(data, verbose=0), atol=1e-6
    )


def test_a_dataset_of_inputs_and_labels_gives_the_same_cache(x, path, tmp_path):
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(20))).batch(8)
    first, second = build(x, path), build(dataset, tmp_path / "second.h5")
    np.testing.assert_array_equal(first.look_up(x), second.look_up(x))


def test_a_stale_cache_is_refused(x, path):
    build(x, path)
    assert len(kc.TeacherCache(path, teacher=teacher_model())) == 20
    with pytest.raises(ValueError, match="is stale"):
        kc.TeacherCache(path, teacher=teacher_model(seed=4))


def test_another_number_of_classes_is_refused_before_training(x, path):
    student = keras.Sequential([keras.Input((4,)), keras.layers.Dense(CLASSES + 1)])
    student.compile(loss="mse")
    with pytest.raises(ValueError, match=r"teacher \[3\], student \[4\]"):
        student.fit(x, x, verbose=0, callbacks=[kc.Distillation(build(x, path))])


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_truncated_file_is_refused(x, path, keep):
    build(x, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="not a complete teacher cache"):
        kc.TeacherCache(path)


def test_another_hdf5_file_is_refused(path):
    h5py.File(path, "w").close()
    with pytest.raises(ValueError, match="not a complete teacher cache"):
        kc.TeacherCache(path)


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=r"TeacherCache\.build"):
        kc.TeacherCache(path)


def test_a_failed_build_leaves_the_old_file_and_nothing_else(x, path):
    build(x, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not finite"):
        build(x * 1e8, path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"dtype": "int8"}, ValueError, "dtype"),
        ({"dataset": np.zeros((0, 4), "float32")}, ValueError, "no examples"),
        ({"path": "/no/such/folder/teacher.h5"}, OSError, "folder"),
    ],
)
def test_wrong_arguments_of_build_are_named(x, path, arguments, error, message):
    arguments = {"dataset": x, "path": path, "verbose": 0, **arguments}
    with pytest.raises(error, match=message):
        kc.TeacherCache.build(teacher_model(), **arguments)
