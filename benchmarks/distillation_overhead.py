"""What distillation costs per training step of the main job's student.

    python benchmarks/distillation_overhead.py [--steps=100] [--rounds=2]

Prints the median step of ordinary training, of training from the stored outputs of
VGG16, looked up in the step or in the pipeline, and of training with VGG16 in the step,
as a ratio within one run. The kinds take turns, so that other load meets all alike.

What the callback costs beyond the teacher's forward pass shows with a tiny teacher: its
outputs are computed in the ordinary step too, and thrown away, or they teach.
"""

import pathlib
import statistics
import sys
import time

import keras
import tensorflow as tf
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import image_data
import students
import vgg16_models

BATCH_SIZE = 128
WARM_UP = 3
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of each fit.", lower_bound=5)
_ROUNDS = flags.DEFINE_integer("rounds", 2, "Fits of each kind.", lower_bound=1)


class StepTimes(keras.callbacks.Callback):
    """Seconds of each training step."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


class BesideTeacher(keras.Model):
    """A student whose step also computes what a teacher says, to no purpose."""

    def train_step(self, data):
        x, _ = data
        self.said.assign(self.ask(x))
        return super().train_step(data)


def beside(student, teacher):
    """The student, with the teacher's forward pass in its step."""
    model = BesideTeacher(student.inputs, student.output)
    # Behind a function, lest the student own and train it.
    model.ask = lambda x: teacher(x, training=False)
    model.said = tf.Variable(tf.zeros((BATCH_SIZE, 10)), trainable=False)
    return model


def step_times(dataset, callbacks, steps, teacher=None):
    """Seconds of the steps of one fit, without the first ones."""
    student = vgg16_models.build_student()
    if teacher is not None:
        student = beside(student, teacher)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("adam", loss)
    times = StepTimes()
    student.fit(
        dataset.take(steps).prefetch(2),
        callbacks=[*callbacks, times],
        shuffle=False,
        verbose=0,
    )
    return times.seconds[WARM_UP:]


def main(argv):
    del argv
    data = image_data.load_images()
    examples = tf.data.Dataset.from_tensor_slices((data.x_train, data.y_train))
    dataset = examples.batch(BATCH_SIZE)
    cache = kc.TeacherCache(students.TEACHER_CACHE)
    teacher = vgg16_models.build_teacher()
    tiny = keras.Sequential(
        [keras.Input((28, 28, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    steps = _STEPS.value
    kinds = {
        "labels alone": (dataset, [], steps),
        "Distillation(TeacherCache)": (dataset, [kc.Distillation(cache)], steps),
        "the same, attached": (cache.attach(dataset), [kc.Distillation(cache)], steps),
        "Distillation(VGG16)": (
            dataset,
            [kc.Distillation(teacher)],
            max(5, steps // 5),
        ),
        "labels alone, beside a tiny teacher": (dataset, [], steps, tiny),
        "Distillation(a tiny teacher)": (dataset, [kc.Distillation(tiny)], steps),
    }
    seconds = {name: [] for name in kinds}
    for _ in range(_ROUNDS.value):
        for name, kind in kinds.items():
            seconds[name] += step_times(*kind)
    measured = {name: 1000 * statistics.median(v) for name, v in seconds.items()}
    alone = measured["labels alone"]
    print(
        tabulate(
            [(name, f"{v:.1f} ms", f"{v / alone:.2f}") for name, v in measured.items()],
            headers=["training step, batch 128", "median", "ratio"],
            tablefmt="github",
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    app.run(main)
