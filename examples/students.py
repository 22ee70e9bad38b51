"""How the main job trains its students: small nets that learn from VGG16's outputs."""

import pathlib

import keras
import tensorflow as tf
import vgg16_models

import keras_compress as kc

# The stored outputs of the trained VGG16.
TEACHER_CACHE = (
    pathlib.Path(__file__).parent / "assets" / "vgg16_teacher_fashion_mnist.h5"
)

_BATCH_SIZE = 128


def train_student(data, teacher, *, epochs, seed, verbose="auto"):
    """Trains a student on the labels and, if there is a teacher, on its outputs.

    Args:
        data: `image_data.ImageData`.
        teacher: a model, a `TeacherCache`, or `None` to train on the labels alone.
        epochs: passes over the training images.
        seed: of the initial weights and the order of the images.
        verbose: as in `fit`.

    Returns:
        The trained `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    student = vgg16_models.build_student(len(data.class_names))
    fit(student, data, teacher, epochs=epochs, learning_rate=3e-3, verbose=verbose)
    return student


def remove_channels(student, data, teacher, *, macs, epochs, seed, verbose="auto"):
    """Takes the channels that count least out of a trained student; trains the rest on.

    Args:
        student: from `train_student`; it is not changed.
        data, teacher, epochs, seed, verbose: as in `train_student`.
        macs: share of the multiply-accumulates to keep.

    Returns:
        The smaller `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    smaller = kc.prune_channels(student, macs=macs)
    fit(smaller, data, teacher, epochs=epochs, learning_rate=1e-3, verbose=verbose)
    return smaller


def train_aware(student, data, teacher, *, epochs, seed, sparsity=0.0, verbose="auto"):
    """Trains a copy of a trained student on with the rounding of its int8 file.

    Args:
        student: from `train_student` or `remove_channels`; it is not changed.
        data, teacher, epochs, seed, verbose: as in `train_student`.
        sparsity: share of the weights that become zero in the first half.

    Returns:
        The quantization-aware `keras.Model`.
    """
    keras.utils.set_random_seed(seed)
    aware = kc.quantize_aware(student, calibration_data=data.calibration_images)
    callbacks = [kc.QuantizationSchedule(freeze_ranges_at=0.6, freeze_batchnorm_at=0.8)]
    if sparsity:
        schedule = kc.PolynomialDecay(0.0, sparsity, 0.0, 0.5, frequency=20)
        callbacks.append(kc.MagnitudePruning(schedule, scope="model"))
    options = {"callbacks": callbacks, "verbose": verbose}
    rate = 3e-3 if sparsity else 3e-4
    fit(aware, data, teacher, epochs=epochs, learning_rate=rate, **options)
    return aware


def fit(model, data, teacher, *, epochs, learning_rate, callbacks=(), verbose="auto"):
    """Trains a model on the labels and, if there is a teacher, on its outputs."""
    batches = shuffled_batches(data.x_train, data.y_train)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * len(batches))
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    if teacher is not None:
        # docs/distillation.md compares objectives.
        targets = kc.RelationalTargets(temperature=1.0)
        distillation = kc.Distillation(teacher, targets, student_loss_weight=1.0)
        callbacks = [distillation, *callbacks]
    model.fit(
        batches,
        epochs=epochs,
        shuffle=False,  # the dataset is shuffled
        callbacks=list(callbacks),
        verbose=verbose,
    )


def shuffled_batches(x, y):
    """A `tf.data.Dataset` of the images in a new order in each epoch.

    Without autotuning: at the end of an epoch TensorFlow 2.21 often waits until the
    tuner wakes up, which is as long again as the epoch (measured: 24 s became 41 s).
    """
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    dataset = dataset.shuffle(len(x)).batch(_BATCH_SIZE).prefetch(4)
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
