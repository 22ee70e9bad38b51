"""The main job: a VGG16 teacher, a small CNN student, an int8 .tflite, one table.

    python examples/compress_vgg16.py --output_dir=runs/compress_vgg16

Trains a student alone and one distilled from VGG16, and exports both with float32 and
with int8 weights and activations. The distilled student's channels that count least are
removed. What is left is trained on with the rounding of its int8 file, again with the
teacher, while its small weights become zero, and exported. Measures every file on the
whole test set.

Writes a .keras and an _int8.tflite file of each model (student, student_smaller and
student_aware) and results.json.
"""

import dataclasses
import json
import os
import pathlib

import image_data
import numpy as np
import students
import tflite_files
import train_vgg16_teacher
import vgg16_models
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc
import tflite_export

TEACHER_FACTS = students.TEACHER_CACHE.with_suffix(".json")

_TEACHER = flags.DEFINE_enum(
    "teacher",
    "cache",
    ["cache", "train"],
    "Take the stored outputs of the trained VGG16, or train it now from --weights.",
)
_QUICK = flags.DEFINE_bool("quick", False, "6,400 images and one epoch: a smoke test.")
_STUDENT_EPOCHS = flags.DEFINE_integer("student_epochs", 6, "Epochs of each student.")
_CHANNEL_MACS = flags.DEFINE_float(
    "channel_macs",
    0.7,
    "Share of multiply-accumulates that is left when channels of the distilled student "
    "are removed; 1: none are.",
    0,
    1,
)
_CHANNEL_EPOCHS = flags.DEFINE_integer("channel_epochs", 2, "Epochs after that.")
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


def add_rows(rows, name, model, folder, stem, data, *, float32=False):
    """Saves, exports and measures a student; the path of its int8 file."""
    model.save(folder / f"{stem}.keras")
    if float32:
        paths = tflite_files.export_both(model, folder, stem, data)
    else:
        paths = {"int8": tflite_files.export_int8(model, folder, stem, data)}
    accuracies = {key: tflite_files.accuracy(path, data) for key, path in paths.items()}
    rows += measure(name, model, paths, accuracies)
    print(tflite_export.compare(model, paths["int8"], data.x_test[:2000]))
    return paths["int8"]


def compress(rows, data, teacher, folder):
    """Trains the students, one stage after the other; the path of the last file."""
    seed = flags.FLAGS.seed
    epochs = number_of(_STUDENT_EPOCHS)
    print(f"Training the student alone, {epochs} epochs.")
    name = "student"
    student = students.train_student(data, None, epochs=epochs, seed=seed)
    alone = f"{name}, alone"
    add_rows(rows, alone, student, folder, "student_alone", data, float32=True)
    name += ", distilled"
    print(f"Training the {name}, {epochs} epochs.")
    student = students.train_student(data, teacher, epochs=epochs, seed=seed)
    path = add_rows(rows, name, student, folder, "student", data, float32=True)
    if _CHANNEL_MACS.value < 1:
        options = {"macs": _CHANNEL_MACS.value, "epochs": number_of(_CHANNEL_EPOCHS)}
        name += f", {options['macs']:.0%} of MACs"
        print(f"Training the {name}, {options['epochs']} epochs.")
        student = students.remove_channels(student, data, teacher, seed=seed, **options)
        path = add_rows(rows, name, student, folder, "student_smaller", data)
    if _QUANTIZE_AWARE.value:
        options = {"sparsity": _SPARSITY.value, "epochs": number_of(_AWARE_EPOCHS)}
        name += f", {options['sparsity']:.0%} zeros" if options["sparsity"] else ""
        name += ", aware"
        print(f"Training the {name}, {options['epochs']} epochs.")
        aware = students.train_aware(student, data, teacher, seed=seed, **options)
        path = add_rows(rows, name, aware, folder, "student_aware", data)
        count = student.count_params()
        rows[-1] = dataclasses.replace(rows[-1], parameters=count)
    return path


def number_of(epochs):
    """The value of a flag of epochs; 1 with --quick."""
    return 1 if _QUICK.value else epochs.value


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
    cache = kc.TeacherCache(students.TEACHER_CACHE)
    facts = json.loads(TEACHER_FACTS.read_text())
    accuracy = float(np.mean(cache.look_up(data.x_test).argmax(1) == data.y_test))
    print(
        f"Teacher: stored outputs of a VGG16 trained on these images, test accuracy "
        f"{accuracy:.2%} ({students.TEACHER_CACHE.name}; --teacher=train trains it "
        "from scratch)."
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
    if _QUICK.value:
        data = dataclasses.replace(
            data, x_train=data.x_train[:6400], y_train=data.y_train[:6400]
        )
    if choice == "cache":
        teacher, rows = teacher_from_cache(data, folder)
    else:
        teacher, rows = teacher_from_training(data, folder, _QUICK.value)
    final = compress(rows, data, teacher, folder)
    latency_of = str(tflite_export.benchmark(final, threads=1))
    write_results(folder, rows, data, choice, latency_of)
    print(f"\n{table(rows)}\n\nWritten to {folder}: student.keras, {final.name}")


if __name__ == "__main__":
    flags.FLAGS.set_default("output_dir", "runs/compress_vgg16")
    app.run(main)
