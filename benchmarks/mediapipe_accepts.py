"""Does MediaPipe's ImageClassifier take the exported files, and agree with LiteRT?

    python benchmarks/mediapipe_accepts.py --env_dir=runs/mediapipe

Trains a small grey CNN on Fashion-MNIST for some seconds, gives it a colour input,
exports it in several ways and lets MediaPipe classify real test pictures with each, in
an environment of its own that `pip install mediapipe` fills. Prints what is accepted,
both accuracies, and how often MediaPipe and `tflite_export.predict` name the same
class. Exits with 1 if MediaPipe refuses one of the first four files or its labels.

On Debian, MediaPipe needs `apt-get install libgl1 libegl1 libgles2`.
"""

import pathlib
import subprocess
import sys
import tempfile
import venv

import keras
import numpy as np
from absl import app, flags
from keras import layers
from tabulate import tabulate

import tflite_export
from tflite_export.metadata import ImageMetadata

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import image_data

FLAGS = flags.FLAGS
flags.DEFINE_string("env_dir", None, "Keeps MediaPipe's environment for the next run.")
flags.DEFINE_integer("images", 10_000, "Test pictures to classify.", lower_bound=1)
flags.DEFINE_integer("epochs", 2, "Epochs of training.", lower_bound=1)

CHILD = pathlib.Path(__file__).with_name("mediapipe_child.py")
LUMINANCE = (0.299, 0.587, 0.114)
HEADERS = ("file", "accepted", "class names", "MediaPipe", "LiteRT", "same class")


def mediapipe_python(folder: pathlib.Path) -> pathlib.Path:
    """The Python of an environment with MediaPipe, made where there is none."""
    python = folder.absolute() / "bin" / "python"
    if not python.exists():
        print(f"Installing mediapipe in {folder}", flush=True)
        venv.create(folder, with_pip=True)
        install = [python, "-m", "pip", "install", "--quiet", "mediapipe"]
        subprocess.run(install, check=True)
    return python


def train_grey(data):
    """A small CNN of one channel, with probabilities as its outputs."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(data.x_train, data.y_train, 128, FLAGS.epochs, verbose=2)
    return model


def with_colour_input(grey):
    """The same model for pictures of three channels, which is what MediaPipe takes."""
    picture = keras.Input((28, 28, 3), name="image")
    luminance = layers.Conv2D(1, 1, use_bias=False, trainable=False, name="luminance")
    model = keras.Model(picture, grey(luminance(picture)))
    luminance.set_weights([np.reshape(LUMINANCE, (1, 1, 3, 1))])
    return model


def export_files(grey, data, folder: str) -> dict[str, str]:
    """Write the files; the path of each by what it is."""
    labels = data.class_names
    plain = ImageMetadata(labels, mean=0, std=255, name=data.name)
    by_channel = ImageMetadata(labels, mean=(0, 0, 0), std=(255, 255, 254))
    colour = with_colour_input(grey)
    paths = {}
    for what, model, quantization, ends, metadata in (
        ("float32, metadata", colour, "none", ("float32", "float32"), plain),
        ("int8, float32 in and out, metadata", colour, "int8", ("float32",) * 2, plain),
        ("int8, uint8 in and out, metadata", colour, "int8", ("uint8",) * 2, plain),
        (
            "int8, uint8 in, float32 out, metadata",
            colour,
            "int8",
            ("uint8", "float32"),
            plain,
        ),
        ("int8, uint8 in and out", colour, "int8", ("uint8",) * 2, None),
        ("int8, float32 in and out", colour, "int8", ("float32",) * 2, None),
        ("int8, int8 in and out", colour, "int8", ("int8",) * 2, None),
        ("one channel, metadata", grey, "int8", ("float32",) * 2, plain),
        ("std per channel, metadata", colour, "int8", ("float32",) * 2, by_channel),
    ):
        paths[what] = f"{folder}/{len(paths)}.tflite"
        images = data.calibration_images
        tflite_export.export(
            model,
            paths[what],
            quantization=quantization,
            representative_data=images.repeat(3, -1) if model is colour else images,
            input_dtype=ends[0],
            output_dtype=ends[1],
            metadata=metadata,
        )
    return paths


def classify(python, path: str, pictures: np.ndarray) -> dict | str:
    """What MediaPipe found in the pictures, or why it refuses the file."""
    with tempfile.TemporaryDirectory() as folder:
        given, results = f"{folder}/pictures.npy", f"{folder}/found.npz"
        np.save(given, pictures)
        command = [python, CHILD, path, given, results]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reasons = [line for line in lines if line.startswith("refused: ")]
            if not reasons:
                raise RuntimeError(f"MediaPipe could not be run: {lines[-5:]}")
            return reasons[-1].removeprefix("refused: ")
        with np.load(results, allow_pickle=False) as arrays:
            return dict(arrays)


def row(what: str, path: str, data, found: dict | str) -> tuple:
    """A row of the table from what MediaPipe found, or why it refused."""
    if isinstance(found, str):
        return (what, "no", "", "", "", "")
    images, truth = data.x_test[: FLAGS.images], data.y_test[: FLAGS.images]
    ours = tflite_export.predict(path, images.repeat(3, -1)).argmax(-1)
    right = np.take(data.class_names, found["index"]) == found["name"]
    shares = (found["index"] == truth, ours == truth, found["index"] == ours)
    named = "yes" if right.all() else "no"
    return (what, "yes", named, *(f"{share.mean():.2%}" for share in shares))


def main(argv):
    del argv
    data = image_data.load_images()
    grey = train_grey(data)
    pictures = np.round(data.x_test[: FLAGS.images] * 255).astype("uint8")
    with tempfile.TemporaryDirectory() as folder:
        python = mediapipe_python(pathlib.Path(FLAGS.env_dir or f"{folder}/env"))
        paths = export_files(grey, data, folder)
        found = {
            what: classify(python, path, pictures.repeat(3, -1))
            for what, path in paths.items()
        }
        rows = [row(what, path, data, found[what]) for what, path in paths.items()]
    version = next(f["version"] for f in found.values() if not isinstance(f, str))
    print(f"MediaPipe {version}, accuracy on {len(pictures)} test pictures:\n")
    print(tabulate(rows, HEADERS, tablefmt="github", disable_numparse=True))
    print("\nWhy MediaPipe refuses:")
    for what, result in found.items():
        if isinstance(result, str):
            print(f"- {what}: {result}")
    return 0 if all(cells[1:3] == ("yes", "yes") for cells in rows[:4]) else 1


if __name__ == "__main__":
    app.run(main)
