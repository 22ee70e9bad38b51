"""What distillation costs per training step of the main job's student.

    python benchmarks/distillation_overhead.py

Prints the median step of ordinary training, of training from the stored outputs of
VGG16, and of training with VGG16 in the step, as a ratio within one run.
"""

import pathlib
import statistics
import sys
import time

import keras
from absl import app
from tabulate import tabulate

import keras_compress as kc

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import compress_vgg16
import image_data
import vgg16_models

BATCH_SIZE = 128


class StepTimes(keras.callbacks.Callback):
    """Seconds of each training step."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.seconds.append(time.perf_counter() - self.start)


def median_step(data, callbacks, steps):
    student = vgg16_models.build_student()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("adam", loss)
    times, examples = StepTimes(), steps * BATCH_SIZE
    student.fit(
        data.x_train[:examples],
        data.y_train[:examples],
        batch_size=BATCH_SIZE,
        callbacks=[*callbacks, times],
        verbose=0,
    )
    return 1000 * statistics.median(times.seconds[3:])


def main(argv):
    del argv
    data = image_data.load_images()
    cache = kc.TeacherCache(compress_vgg16.CACHE)
    teacher = vgg16_models.build_teacher()
    measured = {
        "labels alone": median_step(data, [], 100),
        "Distillation(TeacherCache)": median_step(data, [kc.Distillation(cache)], 100),
        "Distillation(VGG16)": median_step(data, [kc.Distillation(teacher)], 20),
    }
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
