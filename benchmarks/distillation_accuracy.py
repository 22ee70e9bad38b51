"""What the stored VGG16 teacher is worth to the main job's student.

    python benchmarks/distillation_accuracy.py --examples=20000 --epochs=4
    python benchmarks/distillation_accuracy.py --examples=6000 --epochs=12

Trains the student (84,634 parameters) on the first `examples` images of Fashion-MNIST,
alone and with each objective on the teacher's stored outputs: the same initial weights,
images, epochs and optimizer (Adam(3e-3), falling to 0 as a cosine). Prints the accuracy
on the 10,000 test images, mean and standard deviation over the seeds, and the mean
difference to the student alone.
"""

import os
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
flags.DEFINE_list("methods", None, "Numbers of the rows to run; by default all.")

# (objective, weight of the labels)
METHODS = (
    (None, 1.0),
    (kc.SoftTargets(temperature=4.0, weight=0.9), 0.1),
    (kc.SoftTargets(temperature=4.0, weight=0.5), 0.5),
    (kc.SoftTargets(temperature=2.0, weight=0.5), 1.0),
    (kc.DecoupledTargets(1.0, 8.0, 4.0, weight=0.1, warmup_epochs=0), 1.0),
    (kc.DecoupledTargets(1.0, 2.0, 4.0, weight=0.3, warmup_epochs=0), 1.0),
    (kc.RelationalTargets(temperature=4.0, weight=0.1), 1.0),
    (kc.RelationalTargets(temperature=1.0, weight=1.0), 1.0),
)


def name_of(objective, label_weight: float) -> str:
    """The objective with its settings, and the weight of the labels."""
    if objective is None:
        return "alone"
    settings = ", ".join(f"{k}={v}" for k, v in objective.get_config().items())
    return f"{type(objective).__name__}({settings}), labels {label_weight:g}"


def accuracy(teacher, objective, label_weight: float, seed: int) -> float:
    """Of a student trained so, in percent."""
    import students
    import vgg16_models

    keras.utils.set_random_seed(seed)
    student = vgg16_models.build_student()
    batches = students.shuffled_batches(*training_images(FLAGS.examples))
    steps = FLAGS.epochs * len(batches)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    callbacks = []
    if objective is not None:
        options = {"student_loss_weight": label_weight}
        callbacks = [kc.Distillation(teacher, objective, **options)]
    options = {"epochs": FLAGS.epochs, "shuffle": False, "verbose": 0}
    student.fit(batches, callbacks=callbacks, **options)
    x, y = test_images(10_000)
    return 100 * student.evaluate(x, y, 500, verbose=0, return_dict=True)["accuracy"]


def main(argv: list[str]) -> None:
    """Train the students and print the table."""
    del argv
    logging.set_verbosity(logging.WARNING)
    images()
    import students

    teacher = kc.TeacherCache(students.TEACHER_CACHE)
    for split, (x, y) in (
        ("training", training_images(FLAGS.examples)),
        ("test", test_images(10_000)),
    ):
        right = np.mean(teacher.look_up(x).argmax(1) == y)
        print(f"The teacher classifies {right:.2%} of the {split} images as labelled.")
    chosen = FLAGS.methods or range(len(METHODS))
    methods = [METHODS[int(number)] for number in chosen]
    found = {method: [] for method in methods}
    for seed in range(FLAGS.seeds):
        for method in methods:
            found[method].append(accuracy(teacher, *method, seed))
            score = f"{found[method][-1]:.2f}"
            print(seed, name_of(*method), score, file=sys.stderr, flush=True)
            keras.utils.clear_session()
    alone = statistics.mean(found[methods[0]])
    rows = []
    for method, scores in found.items():
        mean = statistics.mean(scores)
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        each = " ".join(f"{score:.2f}" for score in scores)
        rows.append(
            (name_of(*method), f"{mean:.2f} %{spread}", each, f"{mean - alone:+.2f}")
        )
    headers = ("student", "accuracy", "each seed", "difference")
    print()
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app.run(main)
