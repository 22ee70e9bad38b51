"""Teachers of every kind: what they answer, what they are fed, what they keep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).integers(0, 4, 16).astype("int32")


def classifier(seed, activation=None, dropout=0.0, use_bias=True):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(4, activation=activation, use_bias=use_bias),
        ]
    )


def softmax(logits, temperature=1.0):
    e = np.exp(logits / temperature)
    return e / e.sum(-1, keepdims=True)


def logits(model, x=X):
    return x @ np.asarray(model.layers[-1].kernel)


def divergence(targets, student, temperature=4.0):
    """T^2 KL from probabilities that are softened already to a student's logits."""
    s = softmax(student, temperature)
    return temperature**2 * np.mean(np.sum(targets * np.log(targets / s), axis=-1))


def distilled(student, teacher, objectives=None, x=X, **options):
    """`distillation_loss` of a student that does not move."""
    student.compile(keras.optimizers.SGD(0.0))
    objectives = objectives or kc.SoftTargets(weight=1.0)
    callback = kc.Distillation(teacher, objectives, **options)
    history = student.fit(x, Y, batch_size=16, callbacks=[callback], verbose=0)
    return history.history["distillation_loss"][0]


def test_several_teachers_teach_the_mean_of_their_softened_probabilities():
    teachers, student = [classifier(1), classifier(3)], classifier(2)
    targets = np.mean([softmax(logits(t), 4.0) for t in teachers], axis=0)
    received = distilled(student, teachers)
    assert received == pytest.approx(divergence(targets, logits(student)), rel=1e-4)


def test_teachers_have_weights_and_their_own_ends():
    teachers = [classifier(1), classifier(3, "softmax"), classifier(4)]
    student = classifier(2)
    targets = sum(
        w * softmax(logits(t), 4.0)
        for w, t in zip((0.25, 0.75), teachers[:2], strict=True)
    )
    received = distilled(student, teachers, teacher_weights=[1, 3, 0])
    assert received == pytest.approx(divergence(targets, logits(student)), rel=1e-4)


def test_other_objectives_see_the_mean_of_the_outputs():
    teachers, student = [classifier(1), classifier(3)], classifier(2)
    mean = sum(map(logits, teachers)) / 2
    expected = np.mean((mean - logits(student)) ** 2)
    for objective in (
        kc.MeanSquaredTargets(),
        lambda y, s, t: tf.reduce_mean(tf.square(s - t), axis=-1),
    ):
        received = distilled(student, teachers, objective)
        assert received == pytest.approx(expected, rel=1e-4)


def test_a_cache_may_be_one_of_several_teachers(tmp_path):
    teachers, student = [classifier(1), classifier(3)], classifier(2)
    cache = kc.TeacherCache.build(
        teachers[0], X, tmp_path / "t", dtype="float32", verbose=0
    )
    received = distilled(student, [cache, teachers[1]])
    expected = distilled(student, teachers)
    assert received == pytest.approx(expected, rel=1e-5)


def test_a_cache_of_probabilities_is_seen(tmp_path):
    teacher, student = classifier(1, "softmax"), classifier(2)
    cache = kc.TeacherCache.build(
        teacher, X, tmp_path / "t", dtype="float32", verbose=0
    )
    expected = divergence(softmax(logits(teacher), 4.0), logits(student))
    assert distilled(student, cache) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "preprocess", [lambda x: x * 2 + 1, keras.layers.Rescaling(2.0, offset=1.0)]
)
def test_a_teacher_is_fed_what_its_preprocessing_makes(preprocess):
    teacher, student = classifier(1), classifier(2)
    targets = softmax(logits(teacher, 2 * X + 1), 4.0)
    received = distilled(student, teacher, teacher_preprocess=preprocess)
    assert received == pytest.approx(divergence(targets, logits(student)), rel=1e-4)


def test_each_teacher_has_its_preprocessing():
    teachers, student = [classifier(1), classifier(3)], classifier(2)
    targets = softmax(logits(teachers[0]), 4.0) + softmax(logits(teachers[1], -X), 4.0)
    received = distilled(student, teachers, teacher_preprocess=[None, lambda x: -x])
    expected = divergence(targets / 2, logits(student))
    assert received == pytest.approx(expected, rel=1e-4)


def test_a_teacher_may_want_larger_images():
    def model(size):
        keras.utils.set_random_seed(size)
        return keras.Sequential(
            [
                keras.Input((size, size, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(4),
            ]
        )

    images = np.random.default_rng(0).random((16, 4, 4, 3)).astype("float32")
    teacher, student = model(12), model(4)
    resize = keras.layers.Resizing(12, 12, interpolation="nearest")
    larger = images.repeat(3, axis=1).repeat(3, axis=2).reshape(16, -1)
    targets = softmax(logits(teacher, larger), 4.0)
    received = distilled(student, teacher, x=images, teacher_preprocess=resize)
    expected = divergence(targets, logits(student, images.reshape(16, -1)))
    assert received == pytest.approx(expected, rel=1e-4)


def test_a_saved_model_teaches(tmp_path):
    teacher, student = classifier(1), classifier(2)
    expected = distilled(student, teacher)
    teacher.export(tmp_path / "t", verbose=False)
    layer = keras.layers.TFSMLayer(tmp_path / "t", call_endpoint="serve")
    weights = [v.numpy() for v in layer.variables]
    assert distilled(student, layer) == pytest.approx(expected, rel=1e-5)
    loaded = tf.saved_model.load(tmp_path / "t")
    assert distilled(student, loaded.serve) == pytest.approx(expected, rel=1e-5)
    signature = loaded.signatures["serving_default"]
    assert distilled(student, lambda x: signature(x)["output_0"]) == pytest.approx(
        expected, rel=1e-5
    )
    for before, variable in zip(weights, layer.variables, strict=True):
        np.testing.assert_array_equal(before, variable.numpy())


def test_teachers_run_in_inference_mode():
    teacher, student = classifier(1, dropout=0.9), classifier(2)
    targets = softmax(logits(teacher), 4.0)
    received = distilled(student, teacher)
    assert received == pytest.approx(divergence(targets, logits(student)), rel=1e-4)


def test_an_earlier_checkpoint_teaches(tmp_path):
    student = classifier(2)
    student.save(tmp_path / "early.keras")
    student.layers[-1].kernel.assign(student.layers[-1].kernel * 2)
    received = distilled(student, keras.saving.load_model(tmp_path / "early.keras"))
    targets = softmax(logits(student) / 2, 4.0)
    assert received == pytest.approx(divergence(targets, logits(student)), rel=1e-4)


def test_teachers_are_not_saved_with_the_student(tmp_path):
    teacher, student = classifier(1), classifier(2)
    distilled(student, [teacher, kc.MovingAverageTeacher()])
    student.save(tmp_path / "student.keras")
    assert len(keras.saving.load_model(tmp_path / "student.keras").weights) == 2


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"jit_compile": True}],
    ids=["graph", "eager", "jit"],
)
def test_the_mean_teacher_is_the_average_of_the_students_weights(options):
    student = classifier(2, use_bias=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.5), loss, **options)
    kernels, losses = [np.array(student.layers[-1].kernel)], []

    def record(batch, logs):
        kernels.append(np.array(student.layers[-1].kernel))

    def lost(epoch, logs):
        losses.append(logs["distillation_loss"])

    callbacks = [
        kc.Distillation(kc.MovingAverageTeacher(0.6), kc.MeanSquaredTargets(), 1.0),
        keras.callbacks.LambdaCallback(on_train_batch_end=record, on_epoch_end=lost),
    ]
    student.fit(X, Y, batch_size=16, epochs=6, callbacks=callbacks, verbose=0)
    average = kernels[0]
    for step in range(6):
        decay = min(0.6, 1 - 1 / (step + 1))
        average = decay * average + (1 - decay) * kernels[step]
        expected = np.mean((X @ average - X @ kernels[step]) ** 2)
        assert losses[step] == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_a_mean_teacher_averages_statistics_and_moves_none():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    student = keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(4)])
    twin = keras.models.clone_model(student)
    twin.set_weights(student.get_weights())
    teachers = [kc.MovingAverageTeacher()], []
    for model, teacher in zip((student, twin), teachers, strict=True):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
        objective = kc.SoftTargets(weight=0.0)
        callbacks = [kc.Distillation(t, objective, 1.0) for t in teacher]
        keras.utils.set_random_seed(1)
        model.fit(X, Y, epochs=3, callbacks=callbacks, verbose=0)
    statistics = [m.layers[0].get_weights()[2:] for m in (student, twin)]
    for received, expected in zip(*statistics, strict=True):
        np.testing.assert_array_equal(received, expected)


def test_a_student_without_weights_has_no_average():
    student = keras.Sequential([keras.layers.Dense(4)])
    callback = kc.Distillation(kc.MovingAverageTeacher())
    callback.set_model(student)
    with pytest.raises(ValueError, match="is not built"):
        callback.on_train_begin()


def test_a_mean_teacher_lets_go_of_the_student():
    teacher = kc.MovingAverageTeacher()
    student = classifier(2)
    distilled(student, teacher)
    assert student not in vars(teacher).values()


def test_nan_in_a_teachers_weights_is_refused_before_training():
    teacher, student = classifier(1), classifier(2)
    teacher.layers[-1].kernel.assign(np.full((8, 4), np.nan))
    with pytest.raises(ValueError, match=r"NaN or infinity in .*kernel"):
        distilled(student, teacher)


def test_nan_from_a_teacher_stops_the_step_before_its_update():
    student = classifier(2)
    student.compile(keras.optimizers.SGD(0.1))
    before = student.get_weights()

    def teacher(x):
        return tf.math.log(x[:, :4])

    with pytest.raises(ValueError, match="teacher 'teacher' must be finite"):
        student.fit(X, Y, callbacks=[kc.Distillation(teacher)], verbose=0)
    for a, b in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "compute_loss" not in vars(student)


def test_a_teacher_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        kc.Distillation(keras.Sequential([keras.layers.Dense(4)]))


def test_a_cache_takes_no_preprocessing(tmp_path):
    cache = kc.TeacherCache.build(classifier(1), X, tmp_path / "t", verbose=0)
    with pytest.raises(ValueError, match="must be None for a TeacherCache"):
        kc.Distillation(cache, teacher_preprocess=lambda x: x)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="`decay`"):
        kc.MovingAverageTeacher(decay)
