"""Fine-tunes the 14.8-million-parameter VGG16 teacher and stores its outputs.

    python examples/train_vgg16_teacher.py --weights=hed --output_dir=runs/teacher

It writes the weights, the outputs for all images (a `keras_compress.TeacherCache`, the
file that examples/compress_vgg16.py takes from examples/assets/) and what the teacher
is as a .tflite. A run that was interrupted goes on from its last checkpoint when it is
started again with the same flags.
"""

import json
import pathlib

import image_data
import keras
import numpy as np
import tensorflow as tf
import tflite_files
import vgg16_models
from absl import app, flags

import keras_compress as kc
import tflite_export

_ASSET = "vgg16_teacher_fashion_mnist"

_WEIGHTS = flags.DEFINE_string(
    "weights", "hed", "Start from imagenet | hed | none | a file of teacher weights."
)
flags.DEFINE_string("output_dir", None, "The folder to write to.")
_EPOCHS = flags.DEFINE_integer("epochs", 8, "Passes over the training images.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images in a batch.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 3e-4, "Peak learning rate.")
_POLICY = flags.DEFINE_string(
    "policy",
    "float32",
    "Keras dtype policy; mixed_bfloat16 is about twice as fast where the CPU has AMX.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of initial weights, order, augmentation.")


def augmented(x, y, batch_size, cache=None):
    """Shuffled batches: mirrored half the time, moved by up to two pixels.

    With a `kc.TeacherCache` each carries the teacher's outputs for the plain images.
    """
    augment = keras.layers.Pipeline(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(
                2 / 28, 2 / 28, fill_mode="constant", interpolation="nearest"
            ),
        ]
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((x, y))
        .shuffle(len(x))
        .batch(batch_size, drop_remainder=True)
    )
    if cache is not None:
        batches = cache.attach(batches)
    batches = batches.map(
        lambda x, *rest: (augment(x, training=True), *rest), tf.data.AUTOTUNE
    )
    return batches.prefetch(4)


def train_teacher(data, weights, *, epochs, batch_size, learning_rate, backup_dir=None):
    """Fine-tunes the teacher with AdamW, a warm-up and a cosine decay.

    Args:
        data: `image_data.ImageData`.
        weights: see `vgg16_models.load_teacher_weights`.
        epochs, batch_size, learning_rate: as in Keras.
        backup_dir: where checkpoints go, so that an interrupted run can go on.

    Returns:
        The trained `keras.Model`, compiled with an accuracy metric.
    """
    teacher = vgg16_models.build_teacher(len(data.class_names))
    vgg16_models.load_teacher_weights(teacher, weights)
    vgg16_models.normalize_activations(teacher, data.x_train[:512])
    steps = max(1, len(data.x_train) // batch_size * epochs)
    warmup = max(1, steps // 16)
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 25,
        steps - warmup,
        alpha=0.005,
        warmup_target=learning_rate,
        warmup_steps=warmup,
    )
    teacher.compile(
        keras.optimizers.AdamW(schedule, weight_decay=0.02, global_clipnorm=1.0),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    backup = [keras.callbacks.BackupAndRestore(backup_dir)] if backup_dir else []
    teacher.fit(
        augmented(data.x_train, data.y_train, batch_size),
        epochs=epochs,
        shuffle=False,  # the dataset is shuffled
        validation_data=(data.x_test, data.y_test),
        validation_batch_size=batch_size,
        callbacks=backup,
    )
    return teacher


def train_from_flags(data, epochs=None, backup_dir=None):
    """`train_teacher` with this script's flags."""
    keras.utils.set_random_seed(_SEED.value)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICY.value)
    try:
        trained = train_teacher(
            data,
            _WEIGHTS.value,
            epochs=epochs or _EPOCHS.value,
            batch_size=_BATCH_SIZE.value,
            learning_rate=_LEARNING_RATE.value,
            backup_dir=backup_dir,
        )
    finally:
        keras.config.set_dtype_policy(policy)
    teacher = vgg16_models.build_teacher(len(data.class_names))
    teacher.set_weights(trained.get_weights())
    return teacher


def write_assets(teacher, data, folder):
    """Stores the teacher's outputs, and its accuracy and size as a .tflite."""
    images = np.concatenate([data.x_train, data.x_test])
    cache = kc.TeacherCache.build(teacher, images, folder / f"{_ASSET}.h5")
    facts = {"images": data.name, "weights_sha256": cache.teacher_sha256}
    for name, path in tflite_files.export_both(
        teacher, folder, "teacher", data
    ).items():
        profile = tflite_export.inspect(path)
        facts[name] = {
            "test_accuracy": tflite_files.accuracy(path, data),
            "bytes": profile.bytes,
            "gzip_bytes": profile.gzip_bytes,
        }
    (folder / f"{_ASSET}.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(json.dumps(facts, indent=2))


def main(argv):
    del argv
    output_dir = pathlib.Path(flags.FLAGS.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    data = image_data.load_images()
    teacher = train_from_flags(data, backup_dir=output_dir / "backup")
    teacher.save_weights(output_dir / "teacher.weights.h5")
    write_assets(teacher, data, output_dir)


if __name__ == "__main__":
    flags.FLAGS.set_default("output_dir", "runs/teacher")
    app.run(main)
