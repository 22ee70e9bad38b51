"""The main job: a VGG16 teacher, a small CNN student, an int8 .tflite, one table.

    python examples/compress_vgg16.py --output_dir=runs/compress_vgg16

Trains a student alone and one distilled from VGG16, and exports both with float32 and
with int8 weights and activations. The distilled student is then trained on with the
rounding of its int8 file, again with the teacher, while its small weights become zero,
and exported. Measures every file on the whole test set. Writes student.keras,
student_int8.tflite, student_aware.keras, student_aware_int8.tflite and results.json.
"""

import dataclasses
import json
import os
import pathlib

import image_data
import keras
import numpy as np
import tflite_files
import train_vgg16_teacher
import vgg16_models
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc
import tflite_export

ASSETS = pathlib.Path(__file__).parent / "assets"
CACHE = ASSETS / "vgg16_teacher_fashion_mnist.h5"
TEACHER_FACTS = ASSETS / "vgg16_teacher_fashion_mnist.json"

_TEACHER = flags.DEFINE_enum(
    "teacher",
    "cache",
    ["cache", "train"],
    "Take the stored outputs of the trained VGG16, or train it now from --weights.",
)
_QUICK = flags.DEFINE_bool("quick", False, "6,400 images and one epoch: a smoke test.")
_STUDENT_EPOCHS = flags.DEFINE_integer("student_epochs", 6, "Epochs of each student.")
_QUANTIZE_AWARE = flags.DEFINE_bool(
    "quantize_aware", True, "Train the distilled student on with int8 rounding."
)
_SPARSITY = flags.DEFINE_float(
    "sparsity",
    0.8,
    "Share of weights that become zero in that training; 0: none.",
    0,
    0.99,
)
_AWARE_EPOCHS = flags.DEFINE_integer("aware_epochs", 2, "Epochs with int8 rounding.")


@dataclasses.dataclass(frozen=True)
class Row:
    """What is measured of one model in one number format."""

    model: str
    format: str
    test_accuracy: float
    parameters: int
    macs: int
    zeros: float
    bytes: int
    gzip_bytes: int
    latency_ms: float


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


def train_aware(student, data, teacher, *, epochs, seed, sparsity=0.0, verbose="auto"):
    """Trains a copy of a trained student on with the rounding of its int8 file.

    Args:
        student: from `train_student`; it is not changed.
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
    batch_size = 128
    steps = epochs * -(-len(data.x_train) // batch_size)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    model.compile(
        keras.optimizers.Adam(rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distillation = [kc.Distillation(teacher)] if teacher is not None else []
    model.fit(
        data.x_train,
        data.y_train,
        batch_size=batch_size,
        epochs=epochs,
        callbacks=[*distillation, *callbacks],
        verbose=verbose,
    )


def add_aware_row(rows, student, data, teacher, folder, *, epochs, seed):
    """Trains, exports and measures the quantization-aware student; its file's path."""
    sparsity = _SPARSITY.value
    pruned = f", {sparsity:.0%} pruned" if sparsity else ""
    print(f"Training the distilled student{pruned}, int8 rounding, {epochs} epochs.")
    aware = train_aware(
        student, data, teacher, epochs=epochs, seed=seed, sparsity=sparsity
    )
    aware.save(folder / "student_aware.keras")
    path = folder / "student_aware_int8.tflite"
    tflite_export.export(aware, path)
    accuracies = {"int8": tflite_files.accuracy(path, data)}
    name = f"student, distilled{pruned}, aware"
    [row] = measure(name, aware, {"int8": path}, accuracies)
    rows.append(dataclasses.replace(row, parameters=student.count_params()))
    print(tflite_export.compare(aware, path, data.x_test[:2000]))
    return path


def measure(name, model, paths, accuracies):
    """One `Row` for each number format of a model."""
    rows = []
    for number_format, path in paths.items():
        profile = tflite_export.inspect(path)
        rows.append(
            Row(
                model=name,
                format=number_format,
                test_accuracy=accuracies[number_format],
                parameters=model.count_params(),
                macs=profile.macs,
                zeros=profile.sparsity,
                bytes=profile.bytes,
                gzip_bytes=profile.gzip_bytes,
                latency_ms=tflite_export.benchmark(path, threads=1).median_ms,
            )
        )
    return rows


def teacher_from_cache(data, folder):
    """The stored teacher: its outputs, and its rows of the table.

    The weights are not stored, so sizes and accuracies are those that were measured
    when it was trained; the latency is measured here, on an untrained VGG16.
    """
    cache = kc.TeacherCache(CACHE)
    facts = json.loads(TEACHER_FACTS.read_text())
    accuracy = float(np.mean(cache.look_up(data.x_test).argmax(1) == data.y_test))
    print(
        f"Teacher: stored outputs of a VGG16 trained on these images, test accuracy "
        f"{accuracy:.2%} ({CACHE.name}; --teacher=train trains it from scratch)."
    )
    untrained = vgg16_models.build_teacher()
    vgg16_models.normalize_activations(untrained, data.x_train[:64])
    rows = []
    for row in measure(
        "VGG16 teacher",
        untrained,
        tflite_files.export_both(untrained, folder, "teacher_untrained", data),
        {name: facts[name]["test_accuracy"] for name in ("float32", "int8")},
    ):
        stored = facts[row.format]
        sizes = {name: stored[name] for name in ("bytes", "gzip_bytes")}
        rows.append(dataclasses.replace(row, **sizes))
    return cache, rows


def teacher_from_training(data, folder, quick):
    """Trains the teacher as examples/train_vgg16_teacher.py does."""
    teacher = train_vgg16_teacher.train_from_flags(data, epochs=1 if quick else None)
    paths = tflite_files.export_both(teacher, folder, "teacher", data)
    accuracies = {
        name: tflite_files.accuracy(path, data) for name, path in paths.items()
    }
    cache = kc.TeacherCache.build(teacher, data.x_train, folder / "teacher.h5")
    return cache, measure("VGG16 teacher", teacher, paths, accuracies)


def prepare_folder(folder):
    """Makes the output folder; fails now rather than after the training."""
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it is not writable")
    except OSError as error:
        raise OSError(
            f"Cannot write to --output_dir={folder}: {error}. Choose a folder that you "
            "may write to."
        ) from error
    return folder


def table(rows):
    return tabulate(
        [
            [
                row.model,
                row.format,
                f"{row.test_accuracy:.2%}",
                f"{row.parameters:,}",
                f"{row.macs / 1e6:.1f} M",
                f"{row.zeros:.1%}",
                f"{row.bytes:,}",
                f"{row.gzip_bytes:,}",
                f"{row.latency_ms:.3f} ms",
            ]
            for row in rows
        ],
        headers=[
            "model",
            "format",
            "test accuracy",
            "parameters",
            "MACs",
            "zeros",
            "bytes",
            "gzip bytes",
            "latency",
        ],
        tablefmt="github",
        disable_numparse=True,
        colalign=("left", "left", *["right"] * 7),
    )


def write_results(folder, rows, data, teacher, latency_of):
    results = {
        "images": data.name,
        "train_images": len(data.x_train),
        "test_images": len(data.x_test),
        "teacher": teacher,
        "quick": _QUICK.value,
        "latency": latency_of,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")


def main(argv):
    del argv
    folder = prepare_folder(flags.FLAGS.output_dir)
    data = image_data.load_images()
    choice = _TEACHER.value
    if choice == "cache" and data.name != "Fashion-MNIST":
        print(f"The stored teacher knows Fashion-MNIST, not {data.name}: training one.")
        choice = "train"
    epochs, seed = _STUDENT_EPOCHS.value, flags.FLAGS.seed
    if _QUICK.value:
        epochs = 1
        data = dataclasses.replace(
            data, x_train=data.x_train[:6400], y_train=data.y_train[:6400]
        )
    if choice == "cache":
        teacher, rows = teacher_from_cache(data, folder)
    else:
        teacher, rows = teacher_from_training(data, folder, _QUICK.value)
    for name, stem, student_teacher in (
        ("student, alone", "student_alone", None),
        ("student, distilled", "student", teacher),
    ):
        print(f"Training the {name}, {epochs} epochs.")
        student = train_student(data, student_teacher, epochs=epochs, seed=seed)
        student.save(folder / f"{stem}.keras")
        paths = tflite_files.export_both(student, folder, stem, data)
        accuracies = {
            key: tflite_files.accuracy(path, data) for key, path in paths.items()
        }
        rows += measure(name, student, paths, accuracies)
    final = paths["int8"]
    print(tflite_export.compare(student, final, data.x_test[:2000]))
    if _QUANTIZE_AWARE.value:
        epochs = 1 if _QUICK.value else _AWARE_EPOCHS.value
        final = add_aware_row(
            rows, student, data, teacher, folder, epochs=epochs, seed=seed
        )
    latency_of = str(tflite_export.benchmark(final, threads=1))
    write_results(folder, rows, data, choice, latency_of)
    print(f"\n{table(rows)}\n\nWritten to {folder}: student.keras, {final.name}")


if __name__ == "__main__":
    flags.FLAGS.set_default("output_dir", "runs/compress_vgg16")
    app.run(main)
