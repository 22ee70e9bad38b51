"""The main job: a VGG16 teacher, a small CNN student, an int8 .tflite, one report.

    python examples/compress_vgg16.py --output_dir=runs/compress_vgg16
    python examples/compress_vgg16.py --resume
    python examples/compress_vgg16.py --teacher=runs/teacher/teacher.weights.h5 \
        --compress_teacher

Trains a student alone and one distilled from VGG16, and exports both with float32 and
with int8 weights and activations. The distilled student's channels that count least are
removed. What is left is trained on with the rounding of its int8 file, again with the
teacher, while its small weights become zero, and exported. Measures every file on the
whole test set.

With `--compress_teacher` VGG16 itself becomes smaller: channels removed, large kernels
written as products, trained on with the whole one as its teacher, exported with int8.

Writes a .keras and .tflite files of each model, results.json and report.html. A run
that was stopped goes on after its last finished stage with `--resume`.
"""

import dataclasses
import functools
import pathlib
import shlex
import sys

import image_data
import measured
import students
import teacher_route
import teachers
import tflite_files
from absl import app, flags
from stages import Stages

import keras_compress as kc
import tflite_export

_TEACHER = flags.DEFINE_string(
    "teacher",
    "cache",
    "cache: the stored outputs of the trained VGG16; train: train it now from "
    "--weights; or a .weights.h5 that examples/train_vgg16_teacher.py wrote.",
)
_QUICK = flags.DEFINE_bool("quick", False, "6,400 images and one epoch: a smoke test.")
_RESUME = flags.DEFINE_bool(
    "resume", False, "Keep the finished stages of a run with the same flags."
)
_COMPRESS_STUDENT = flags.DEFINE_bool(
    "compress_student", True, "Train the students and make the last one smaller."
)
_STUDENT_EPOCHS = flags.DEFINE_integer("student_epochs", 6, "Epochs of each student.")
_DISTIL = flags.DEFINE_bool("distil", True, "Let the teacher teach in all stages.")
_CHANNEL_MACS = flags.DEFINE_float(
    "channel_macs",
    0.7,
    "Share of multiply-accumulates that is left when channels of the student are "
    "removed; 1: none are.",
    0,
    1,
)
_CHANNEL_EPOCHS = flags.DEFINE_integer("channel_epochs", 2, "Epochs after that.")
_QUANTIZE_AWARE = flags.DEFINE_bool(
    "quantize_aware", True, "Train the student on with int8 rounding."
)
_SPARSITY = flags.DEFINE_float(
    "sparsity",
    0.8,
    "Share of weights that become zero in that training; 0: none.",
    0,
    0.99,
)
_AWARE_EPOCHS = flags.DEFINE_integer("aware_epochs", 2, "Epochs with int8 rounding.")
_COMPRESS_TEACHER = flags.DEFINE_bool(
    "compress_teacher", False, "Make VGG16 itself smaller too; needs its weights."
)
_TEACHER_MACS = flags.DEFINE_float(
    "teacher_macs", 0.4, "Share of VGG16's multiply-accumulates to keep.", 0, 1
)
_TEACHER_PARAMS = flags.DEFINE_float(
    "teacher_params",
    0.6,
    "Share of the parameters left that low-rank kernels keep; 1: no low rank.",
    0,
    1,
)
_TEACHER_EPOCHS = flags.DEFINE_integer("teacher_epochs", 6, "Epochs after that.")


@dataclasses.dataclass(frozen=True)
class Job:
    """The images and the stages of one run, and the rows they left."""

    data: image_data.ImageData
    stages: Stages
    rows: list = dataclasses.field(default_factory=list)

    def stage(self, stem, name, settings, train, measure):
        """The model of a stage; its rows are added to the table."""

        def announced():
            print(f"\n{name}: {settings}", flush=True)
            return train()

        def rows_of(model, seconds):
            return [dataclasses.asdict(row) for row in measure(model, seconds)]

        model, rows = self.stages.run(stem, settings, announced, rows_of)
        self.rows.extend(measured.Row(**row) for row in rows)
        return model

    def student(self, stem, name, settings, train, *, float32=False, parameters=None):
        """`stage` of a student, which is exported and compared with its int8 file."""

        def measure(model, seconds):
            make = tflite_files.export_both if float32 else tflite_files.export_int8
            paths = make(model, self.stages.folder, stem, self.data)
            print(tflite_export.compare(model, paths["int8"], self.data.x_test[:2000]))
            samples = settings["epochs"] * len(self.data.x_train)
            return measured.measure(
                name,
                paths,
                self.data,
                parameters=parameters or model.count_params(),
                training={"seconds": seconds, "samples": samples},
            )

        return self.stage(stem, name, settings, train, measure)


def number_of(epochs):
    """The value of a flag of epochs; 1 with --quick."""
    return 1 if _QUICK.value else epochs.value


def compress(job, teacher):
    """The students, each from the one before."""
    seed = flags.FLAGS.seed
    settings = {"epochs": number_of(_STUDENT_EPOCHS)}
    train = functools.partial(students.train_student, job.data, seed=seed, **settings)
    name = "student, alone"
    student = job.student(
        "student_alone", name, settings, lambda: train(None), float32=True
    )
    if _DISTIL.value:
        name = "student, distilled"
        student = job.student(
            "student", name, settings, lambda: train(teacher), float32=True
        )
    else:
        teacher = None
    options = {"data": job.data, "teacher": teacher, "seed": seed}
    if _CHANNEL_MACS.value < 1:
        settings = {"macs": _CHANNEL_MACS.value, "epochs": number_of(_CHANNEL_EPOCHS)}
        name += f", {settings['macs']:.0%} of MACs"
        train = functools.partial(
            students.remove_channels, student, **settings, **options
        )
        student = job.student("student_smaller", name, settings, train)
    if _QUANTIZE_AWARE.value:
        settings = {"sparsity": _SPARSITY.value, "epochs": number_of(_AWARE_EPOCHS)}
        name += f", {settings['sparsity']:.0%} zeros" if settings["sparsity"] else ""
        name += ", aware"
        train = functools.partial(students.train_aware, student, **settings, **options)
        count = student.count_params()
        job.student("student_aware", name, settings, train, parameters=count)


def compress_teacher(job, teacher, cache):
    """VGG16 itself, with fewer channels and lower ranks."""
    settings = {
        "macs": _TEACHER_MACS.value,
        "params": _TEACHER_PARAMS.value,
        "epochs": number_of(_TEACHER_EPOCHS),
    }
    name = f"VGG16, {settings['macs']:.0%} of MACs"
    name += ", low rank" if settings["params"] < 1 else ""
    train = functools.partial(
        teacher_route.make_smaller,
        teacher,
        cache,
        job.data,
        seed=flags.FLAGS.seed,
        **settings,
    )
    job.student("teacher_smaller", name, settings, train, float32=True)


def teacher_of(job):
    """The teacher, None where its outputs are all there is, and their cache."""
    choice = _TEACHER.value
    folder = job.stages.folder
    if choice == "cache" and job.data.name == "Fashion-MNIST":
        found = functools.partial(teachers.stored, data=job.data, folder=folder)
        job.stage("teacher", "VGG16 teacher, stored", {}, lambda: None, found)
        return None, kc.TeacherCache(students.TEACHER_CACHE)
    if choice == "cache":
        print(f"The stored teacher knows Fashion-MNIST, not {job.data.name}.")
    if trained_here := choice in ("cache", "train"):
        train = functools.partial(teachers.trained, job.data, quick=_QUICK.value)
    else:
        train = functools.partial(teachers.from_weights, job.data, choice)
    options = {"data": job.data, "folder": folder, "trained_here": trained_here}
    measure = functools.partial(teachers.measured, **options)
    teacher = job.stage("teacher", "VGG16 teacher", {}, train, measure)
    path = folder / "teacher.h5"
    if not path.exists() or not _RESUME.value:
        kc.TeacherCache.build(teacher, job.data.x_train, path)
    return teacher, kc.TeacherCache(path, teacher=teacher)


def main(argv):
    del argv
    settings = {"teacher": _TEACHER.value, "quick": _QUICK.value}
    settings |= {"seed": flags.FLAGS.seed, "distil": _DISTIL.value}
    if _COMPRESS_TEACHER.value and _TEACHER.value == "cache":
        raise app.UsageError(
            "--compress_teacher needs VGG16's weights, of which --teacher=cache has "
            "only the outputs. Give --teacher=train, or --teacher=FILE.weights.h5."
        )
    folder = pathlib.Path(flags.FLAGS.output_dir)
    stages = Stages(folder, settings, resume=_RESUME.value)
    data = image_data.load_images()
    if _QUICK.value:
        data = dataclasses.replace(
            data, x_train=data.x_train[:6400], y_train=data.y_train[:6400]
        )
    job = Job(data, stages)
    teacher, cache = teacher_of(job)
    if _COMPRESS_TEACHER.value:
        compress_teacher(job, teacher, cache)
    if _COMPRESS_STUDENT.value:
        compress(job, cache)
    command = shlex.join(["python", "examples/compress_vgg16.py", *sys.argv[1:]])
    title = f"VGG16 to a phone: {data.name}"
    report, rows = measured.report_of(job.rows, folder, title, [command])
    [latency] = report.latency_notes()
    measured.write_results(rows, folder, data, settings, latency)
    report.to_html(folder / "report.html")
    report.to_json(folder / "report.json")
    print(f"\n{measured.table(rows)}\n\nThe same with plots: {folder}/report.html")


if __name__ == "__main__":
    flags.FLAGS.set_default("output_dir", "runs/compress_vgg16")
    app.run(main)
