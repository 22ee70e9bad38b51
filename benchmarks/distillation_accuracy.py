"""What a VGG16 teacher is worth to the main job's student, by objective.

    python benchmarks/distillation_accuracy.py --examples=20000 --epochs=6
    python benchmarks/distillation_accuracy.py --labels=0.1 --epochs=6
    python benchmarks/distillation_accuracy.py --quick

Trains the student (84,634 parameters) on the first `examples` images of Fashion-MNIST,
alone and with each objective on the teacher's stored outputs: the same initial weights,
images, steps and optimizer (Adam(3e-3), falling to 0 as a cosine). Prints the accuracy
on the 10,000 test images, mean and standard deviation over the seeds, and the mean
difference to the student alone.

With `--labels=0.1` a tenth of the images has labels. The student alone sees these in as
many steps; the others see all images, of which the rest has the teacher's outputs only
(label -1, `ignore_class=-1`). "Labelled images only" sees what the student alone
sees.

`--teacher_weights` names the weights of a VGG16 from examples/train_vgg16_teacher.py
(with another `--seed` than the stored teacher's): it is the second of two teachers, and
the one whose features are matched. Without it these rows are left out.
"""

import collections.abc
import dataclasses
import os
import pathlib
import statistics
import sys

import keras
import numpy as np
from absl import app, flags, logging
from qat_data import images, test_images, training_images
from tabulate import tabulate

import keras_compress as kc

FLAGS = flags.FLAGS
flags.DEFINE_integer("examples", 60_000, "Training images.", 1)
flags.DEFINE_integer("epochs", 6, "Epochs of each student.", 1)
flags.DEFINE_integer("seeds", 3, "How often, each with another seed.", 1)
flags.DEFINE_float("labels", 1.0, "Share of these images with labels.", 0, 1)
flags.DEFINE_list("methods", None, "Numbers of the rows to run; by default all.")
flags.DEFINE_string("teacher_weights", None, "Of another VGG16.")
flags.DEFINE_string("plot", None, "An .svg to write.")
flags.DEFINE_bool("quick", False, "One seed, one epoch, 2,000 images, three methods.")

FEATURES = "block5_conv3"
CACHE_FOLDER = pathlib.Path("runs/distillation_accuracy")


@dataclasses.dataclass(frozen=True)
class Method:
    """A row: `objectives(student)`, None for no teacher, and what goes with them."""

    name: str
    objectives: collections.abc.Callable | None
    label_weight: float = 1.0
    teacher: str = "stored"
    labelled_only: bool = False


def relational(student) -> list:
    """The main job's objective."""
    return [kc.RelationalTargets(temperature=1.0)]


def features_and_targets(student) -> list:
    """FeatureMatch at the last convolution, beside SoftTargets."""
    last = [layer for layer in student.layers if isinstance(layer, keras.layers.ReLU)]
    match = kc.FeatureMatch(last[-1], FEATURES, weight=0.1)
    return [match, kc.SoftTargets(temperature=2.0, weight=0.5)]


METHODS = (
    Method("alone", None, labelled_only=True),
    Method("SoftTargets(4, weight=0.9), labels 0.1", lambda _: None, 0.1),
    Method(
        "SoftTargets(2, weight=0.5)",
        lambda _: [kc.SoftTargets(temperature=2.0, weight=0.5)],
    ),
    Method(
        "DecoupledTargets(1, 2, 4, weight=0.3)",
        lambda _: [kc.DecoupledTargets(1.0, 2.0, 4.0, weight=0.3, warmup_epochs=0)],
    ),
    Method("RelationalTargets(temperature=1)", relational),
    Method(
        "FeatureMatch(weight=0.1), SoftTargets(2, weight=0.5)",
        features_and_targets,
        teacher="second",
    ),
    Method("RelationalTargets(temperature=1), second teacher", relational, 1, "second"),
    Method("RelationalTargets(temperature=1), two teachers", relational, 1, "both"),
)
LABELLED_ONLY = Method(
    "RelationalTargets(temperature=1), labelled images only",
    relational,
    labelled_only=True,
)


def chosen_methods() -> list[Method]:
    """Those that the flags ask for and that can be run."""
    methods = list(METHODS)
    if FLAGS.labels < 1:
        # DecoupledTargets needs the label of each image.
        methods = [m for m in methods if not m.name.startswith("Decoupled")]
        methods.append(LABELLED_ONLY)
    if FLAGS.methods:
        methods = [methods[int(number)] for number in FLAGS.methods]
    if FLAGS.teacher_weights is None:
        for method in methods:
            if method.teacher != "stored":
                print(f"Left out, no --teacher_weights: {method.name}")
        methods = [m for m in methods if m.teacher == "stored"]
    return methods


def known_teachers() -> dict:
    """Teachers by name; the second one's outputs are computed once and kept."""
    import students
    import vgg16_models

    stored = kc.TeacherCache(students.TEACHER_CACHE)
    if FLAGS.teacher_weights is None:
        return {"stored": stored}
    vgg16 = vgg16_models.build_teacher()
    vgg16_models.load_teacher_weights(vgg16, FLAGS.teacher_weights)
    CACHE_FOLDER.mkdir(parents=True, exist_ok=True)
    path = CACHE_FOLDER / f"teacher_{FLAGS.examples}.h5"
    if not path.exists():
        x, _ = training_images(FLAGS.examples)
        kc.TeacherCache.build(vgg16, x, path, feature_layers=[FEATURES])
    second = kc.TeacherCache(path, teacher=vgg16)
    return {"stored": stored, "second": second, "both": [stored, second]}


def batches_of(method: Method):
    """The images that the method sees, over and over; labels that are not known: -1."""
    import students

    x, y = training_images(FLAGS.examples)
    known = round(FLAGS.labels * len(x))
    if method.labelled_only:
        batches = students.shuffled_batches(x[:known], y[:known])
    else:
        y = np.where(np.arange(len(y)) < known, y, -1)
        batches = students.shuffled_batches(x, y)
    return batches.repeat()


def accuracy(teachers: dict, method: Method, seed: int) -> float:
    """Of a student trained so, in percent."""
    import vgg16_models

    keras.utils.set_random_seed(seed)
    student = vgg16_models.build_student()
    epoch = -(-FLAGS.examples // 128)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, FLAGS.epochs * epoch)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    student.compile(keras.optimizers.Adam(rate), loss)
    callbacks = []
    if method.objectives is not None:
        callbacks = [
            kc.Distillation(
                teachers[method.teacher],
                method.objectives(student),
                student_loss_weight=method.label_weight,
            )
        ]
    options = {"epochs": FLAGS.epochs, "steps_per_epoch": epoch, "shuffle": False}
    student.fit(batches_of(method), callbacks=callbacks, verbose=0, **options)
    x, y = test_images(10_000)
    return 100 * float(np.mean(student.predict(x, 500, verbose=0).argmax(1) == y))


def draw(found: dict, path: str) -> None:
    """Each method's mean and seeds, as dots on a line."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(found) + 1))
    for row, scores in enumerate(found.values()):
        axes.plot(scores, [row] * len(scores), "o", color="tab:blue", alpha=0.4)
        axes.plot(statistics.mean(scores), row, "|", color="black", markersize=16)
    alone = statistics.mean(next(iter(found.values())))
    axes.axvline(alone, color="tab:gray", linewidth=0.8)
    axes.set_yticks(range(len(found)), [method.name for method in found])
    axes.invert_yaxis()
    axes.set_xlabel("test accuracy, %: each seed, and their mean")
    figure.tight_layout()
    figure.savefig(path)


def main(argv: list[str]) -> None:
    """Train the students and print the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    images()
    if FLAGS.quick:
        FLAGS.seeds, FLAGS.epochs, FLAGS.examples = 1, 1, 2_000
        FLAGS.methods = FLAGS.methods or ["0", "1", "4"]
    methods = chosen_methods()
    teachers = known_teachers()
    for name in teachers.keys() - {"both"}:
        x, y = training_images(FLAGS.examples)
        right = np.mean(teachers[name].look_up(x).argmax(1) == y)
        print(f"The {name} teacher classifies {right:.2%} of the training images.")
    found = {method: [] for method in methods}
    for seed in range(FLAGS.seeds):
        for method in methods:
            found[method].append(accuracy(teachers, method, seed))
            score = f"{found[method][-1]:.2f}"
            print(seed, method.name, score, file=sys.stderr, flush=True)
            keras.utils.clear_session()
    alone = statistics.mean(found[methods[0]])
    rows = []
    for method, scores in found.items():
        mean = statistics.mean(scores)
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        each = " ".join(f"{score:.2f}" for score in scores)
        rows.append(
            (method.name, f"{mean:.2f} %{spread}", each, f"{mean - alone:+.2f}")
        )
    headers = ("student", "accuracy", "each seed", "difference")
    print()
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))
    if FLAGS.plot:
        draw(found, FLAGS.plot)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
