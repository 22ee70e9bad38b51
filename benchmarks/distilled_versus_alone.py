"""Does the teacher help? The main job's student, alone and distilled, over seeds.

python benchmarks/distilled_versus_alone.py --seeds=0,1,2
"""

import json
import pathlib
import sys

import keras
import numpy as np
from absl import app, flags
from tabulate import tabulate

import keras_compress as kc

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import compress_vgg16
import image_data

_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds to train with.")


def test_accuracy(model, data):
    logits = model.predict(data.x_test, batch_size=500, verbose=0)
    return float(np.mean(logits.argmax(1) == data.y_test))


def main(argv):
    del argv
    data = image_data.load_images()
    cache = kc.TeacherCache(compress_vgg16.CACHE)
    train = np.mean(cache.look_up(data.x_train).argmax(1) == data.y_train)
    test = np.mean(cache.look_up(data.x_test).argmax(1) == data.y_test)
    print(f"Accuracy of the stored teacher: {train:.2%} training, {test:.2%} test.")
    rows = []
    for seed in map(int, _SEEDS.value):
        accuracies = []
        for teacher in (None, cache):
            student = compress_vgg16.train_student(
                data, teacher, epochs=flags.FLAGS.student_epochs, seed=seed, verbose=2
            )
            accuracies.append(test_accuracy(student, data))
            keras.utils.clear_session()
        rows.append([seed, *accuracies, accuracies[1] - accuracies[0]])
        print(json.dumps(rows[-1]), flush=True)
    mean = np.mean([row[1:] for row in rows], axis=0)
    deviation = np.std([row[1:] for row in rows], axis=0, ddof=1)
    rows += [["mean", *mean], ["standard deviation", *deviation]]
    print(
        tabulate(
            [[name, *(f"{value:.2%}" for value in values)] for name, *values in rows],
            headers=["seed", "alone", "distilled", "difference"],
            tablefmt="github",
            disable_numparse=True,
        )
    )


if __name__ == "__main__":
    app.run(main)
