"""Outputs that travel along: through augmentation, and into a step compiled by XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_compress as kc
from keras_compress.distillation.teacher_cache_attach import receive_attached
from keras_compress.training_step import TrainingStepExtension, extend_training_step

CLASSES = 3
SIZE = 6
WEIGHT = 0.9
QUIET = {"verbose": 0, "shuffle": False}


class FromCache(keras.callbacks.Callback):
    """What `Distillation` does with a cache: one objective of weight 0.9."""

    def __init__(self, cache):
        super().__init__()
        self.cache = cache

    def on_train_begin(self, logs=None):
        self.undo = receive_attached(self.model)
        self.remove = extend_training_step(
            self.model,
            TrainingStepExtension(
                self.added_loss,
                owner=self,
                compiled_loss_weight=0.1,
                explain=self.cache.explain,
            ),
        )

    def added_loss(self, x, y, y_pred, sample_weight):
        targets = self.cache.look_up_in_graph(x)
        loss = kc.SoftTargets()(targets, y_pred, sample_weight=sample_weight)
        return WEIGHT * loss

    def on_train_end(self, logs=None):
        self.remove()
        self.undo()


def images(n=24):
    return np.random.default_rng(0).random((n, SIZE, SIZE, 1)).astype("float32")


def model(seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    return keras.Sequential([keras.Input((SIZE, SIZE, 1)), *layers])


def student(**options):
    net = model(9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(keras.optimizers.SGD(0.1), loss, **options)
    return net


@pytest.fixture
def x():
    return images()


@pytest.fixture
def y():
    return np.arange(24, dtype="int32") % CLASSES


@pytest.fixture
def teacher():
    return model(3)


@pytest.fixture
def cache(x, tmp_path, teacher):
    path = tmp_path / "teacher.h5"
    return kc.TeacherCache.build(teacher, x, path, dtype="float32", verbose=0)


def batches(*arrays, size=8):
    return tf.data.Dataset.from_tensor_slices(arrays).batch(size)


def assert_same_weights(a, b):
    for left, right in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


OPTIONS = [
    {},
    {"jit_compile": True},
    {"run_eagerly": True},
    {"steps_per_execution": 2},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["graph", "jit", "eager", "steps"])
def test_attached_outputs_train_as_the_teacher_does(x, y, teacher, cache, options):
    direct, attached = student(**options), student(**options)
    direct.fit(batches(x, y), callbacks=[kc.Distillation(teacher)], **QUIET)
    attached.fit(
        cache.attach(batches(x, y)), callbacks=[FromCache(cache)], epochs=1, **QUIET
    )
    assert attached.jit_compile is bool(options.get("jit_compile"))
    assert_same_weights(direct, attached)


def test_sample_weights_stay_in_their_place(x, y, teacher, cache):
    direct, attached = student(), student()
    data = batches(x, y, np.linspace(0, 2, 24, dtype="float32"))
    direct.fit(data, callbacks=[kc.Distillation(teacher)], **QUIET)
    attached.fit(cache.attach(data), callbacks=[FromCache(cache)], **QUIET)
    assert_same_weights(direct, attached)


def test_without_labels_the_inputs_alone_carry_them(x, cache):
    [(inputs, column)] = cache.attach(batches(x, size=24).map(lambda x: x))
    np.testing.assert_array_equal(inputs, x)
    [found] = column.values()
    np.testing.assert_allclose(found["outputs"], cache.look_up(x))


def one_step_by_hand(weights, x, y, targets):
    """The student after a step of SGD on these images and teacher outputs."""
    kernel, bias = (tf.Variable(w) for w in weights)
    with tf.GradientTape() as tape:
        logits = tf.reshape(x, (len(x), -1)) @ kernel + bias
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        p = tf.nn.softmax(targets / 4)
        log_student = tf.nn.log_softmax(logits / 4)
        soft = 16 * tf.reduce_sum(p * (tf.math.log(p) - log_student), -1)
        loss = tf.reduce_mean(0.1 * hard + WEIGHT * soft)
    gradients = tape.gradient(loss, (kernel, bias))
    return [v - 0.1 * g for v, g in zip((kernel, bias), gradients, strict=True)]


def assert_step_is_of_plain_outputs(net, before, x, y, cache):
    """The step saw mirrored images, with what the teacher made of the plain ones."""
    mirrored = x[:, :, ::-1]
    wanted = one_step_by_hand(before, mirrored, y, cache.look_up(x))
    for given, value in zip(net.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(given, value, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_attached_outputs_pass_through_augmentation(x, y, cache, jit_compile):
    def augment(x, y, column):
        return tf.image.flip_left_right(x), y, column

    net = student(jit_compile=jit_compile)
    before = net.get_weights()
    data = cache.attach(batches(x, y, size=24)).map(augment)
    net.fit(data, callbacks=[FromCache(cache)], **QUIET)
    assert_step_is_of_plain_outputs(net, before, x, y, cache)


def test_keys_pass_through_augmentation_one_by_one(x, y, cache):
    def augment(x, y, key):
        return tf.image.flip_left_right(x), y, key

    net = student(jit_compile=True)
    before = net.get_weights()
    examples = tf.data.Dataset.from_tensor_slices((x, y, cache.keys(x)))
    data = cache.attach(examples.map(augment).batch(24), keyed=True)
    net.fit(data, callbacks=[FromCache(cache)], **QUIET)
    assert_step_is_of_plain_outputs(net, before, x, y, cache)


def test_random_keras_augmentation_is_never_looked_up(x, y, cache):
    layer = keras.layers.RandomTranslation(0.5, 0.5, seed=1)
    data = cache.attach(batches(x, y)).shuffle(3, seed=0)
    data = data.map(lambda x, y, column: (layer(x, training=True), y, column))
    seen = []
    for augmented, labels, column in data:
        [found] = column.values()
        rows = [
            int(np.abs(cache.look_up(x) - t).sum(1).argmin()) for t in found["outputs"]
        ]
        np.testing.assert_array_equal(y[rows], labels)
        assert not np.array_equal(augmented, x[rows])
        seen += rows
    assert sorted(seen) == list(range(24))
    net = student()
    net.fit(data, callbacks=[FromCache(cache)], epochs=2, **QUIET)
    with pytest.raises(ValueError, match=r"attach\(dataset\)"):
        plain = batches(x, y).map(lambda x, y: (layer(x, training=True), y))
        student().fit(plain, callbacks=[FromCache(cache)], **QUIET)


def test_an_unknown_example_in_the_pipeline_is_the_same_clear_error(x, y, cache):
    net = student()
    with pytest.raises(ValueError, match="holds no teacher output for 8 of 8"):
        net.fit(cache.attach(batches(x + 1, y)), callbacks=[FromCache(cache)], **QUIET)
    assert "train_step" not in vars(net)


def test_xla_without_attached_outputs_is_a_clear_error(x, y, cache):
    net = student(jit_compile=True)
    with pytest.raises(ValueError, match="carries no outputs of this teacher"):
        net.fit(batches(x, y), callbacks=[FromCache(cache)], **QUIET)
    assert not [name for name in vars(net) if "keras_compress" in name]


def test_outputs_of_two_caches_are_attached_together(x, y, cache, teacher, tmp_path):
    second_teacher = model(5)
    second = kc.TeacherCache.build(
        second_teacher, x, tmp_path / "second", dtype="float32", verbose=0
    )
    direct, attached = student(), student(jit_compile=True)
    direct.fit(
        batches(x, y),
        callbacks=[kc.Distillation(teacher), kc.Distillation(second_teacher)],
        **QUIET,
    )
    attached.fit(
        second.attach(cache.attach(batches(x, y))),
        callbacks=[FromCache(cache), FromCache(second)],
        **QUIET,
    )
    assert_same_weights(direct, attached)
    assert "train_step" not in vars(attached)


def test_fit_leaves_nothing_behind_and_trains_plainly_afterwards(x, y, cache):
    net, plain = student(), student()
    plain.fit(batches(x, y), **QUIET)
    attributes = set(vars(plain))
    for _ in range(2):
        net.fit(cache.attach(batches(x, y)), callbacks=[FromCache(cache)], **QUIET)
        assert set(vars(net)) == attributes
    plain.set_weights(net.get_weights())
    for trained in (net, plain):
        trained.fit(batches(x, y), **QUIET)
    assert_same_weights(net, plain)


@pytest.mark.parametrize("keyed", [False, True])
def test_what_cannot_be_attached_to_is_named(x, cache, keyed):
    with pytest.raises(ValueError, match=r"tf\.data\.Dataset.*Received: ndarray"):
        cache.attach(x)
    if keyed:
        with pytest.raises(ValueError, match=r"cache\.keys\(x\)"):
            cache.attach(batches(x), keyed=True)


def test_two_replicas_get_their_own_rows(x, y, teacher, cache, two_replicas):
    direct = student()
    with two_replicas.scope():
        attached = student()
    direct.fit(batches(x, y), callbacks=[kc.Distillation(teacher)], **QUIET)
    # Keras reads a first batch, before it asks a callback, unless it has seen one.
    attached.evaluate(batches(x, y), verbose=0)
    data = cache.attach(batches(x, y))
    attached.fit(data, callbacks=[FromCache(cache)], **QUIET)
    assert_same_weights(direct, attached)
