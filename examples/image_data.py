"""Real images for the examples, from the first place that has them.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence) is looked for in the
folder of the Debian package `dataset-fashion-mnist`, then asked of
`keras.datasets`, which downloads it. Where neither works, the 8x8 digits that ship
with scikit-learn stand in, scaled up to the same 28x28 pixels.
"""

import dataclasses
import gzip
import math
import pathlib
import struct
import zlib

import keras
import numpy as np

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

_IDX_UNSIGNED_BYTE = 0x08


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Grey images, `float32` in [0, 1] of shape `(n, 28, 28, 1)`, and `int32` labels.

    `name` says which dataset it is and `source` where it was found.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def calibration_images(self):
        """500 training images; `tflite_export` reads 300 of them, evenly spaced."""
        return self.x_train[:500]


def read_idx(path):
    """Reads a gzipped IDX file of unsigned bytes, the format of the MNIST family.

    Returns:
        A `uint8` array of the shape that the file's header gives.

    Raises:
        ValueError: the file is not gzip, not IDX, or shorter than its header says.
    """
    fix = "Delete it and install it again (`apt-get install dataset-fashion-mnist`)."
    try:
        content = gzip.decompress(pathlib.Path(path).read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or corrupt: it is not a complete gzip file "
            f"({error}). {fix}"
        ) from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _IDX_UNSIGNED_BYTE]):
        raise ValueError(
            f"{path} is not an IDX file of unsigned bytes: expected it to begin with "
            f"00 00 08, received {content[:3].hex(' ') or 'nothing'}. {fix}"
        )
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise ValueError(
            f"{path} is truncated: its header promises {rank} dimensions. {fix}"
        )
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{path} is truncated or corrupt: its header promises shape {shape}, "
            f"{math.prod(shape)} bytes. Received {len(content) - header} bytes. {fix}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def load_images(folder=DEBIAN_FOLDER):
    """Loads Fashion-MNIST, or scikit-learn's digits where it cannot be had.

    Args:
        folder: where the four IDX files of Fashion-MNIST may lie.

    Returns:
        `ImageData`. Says on standard output which dataset it is.

    Raises:
        ValueError: a file in `folder` is truncated or corrupt.
    """
    folder = pathlib.Path(folder)
    if folder.is_dir():
        data = _fashion_mnist(folder)
    else:
        print(f"No Fashion-MNIST in {folder}; asking keras.datasets.")
        try:
            arrays = keras.datasets.fashion_mnist.load_data()
        except Exception as error:  # get_file raises plain Exception offline
            print(f"keras.datasets has none either ({error}); taking the digits.")
            data = _digits()
        else:
            (x_train, y_train), (x_test, y_test) = arrays
            data = _image_data(
                "Fashion-MNIST", "keras.datasets", x_train, y_train, x_test, y_test
            )
    print(
        f"Images: {data.name} from {data.source}, "
        f"{len(data.x_train)} to train, {len(data.x_test)} to test."
    )
    return data


def _fashion_mnist(folder):
    arrays = [
        read_idx(folder / f"{split}-{kind}-ubyte.gz")
        for split in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape != (len(labels), 28, 28):
            raise ValueError(
                f"{folder}: expected 28x28 images, one for each label. Received images "
                f"of shape {images.shape} and {len(labels)} labels."
            )
    return _image_data("Fashion-MNIST", str(folder), *arrays)


def _image_data(name, source, x_train, y_train, x_test, y_test):
    return ImageData(
        name,
        source,
        FASHION_CLASSES,
        _to_float(x_train),
        y_train.astype("int32"),
        _to_float(x_test),
        y_test.astype("int32"),
    )


def _to_float(images):
    return images[..., np.newaxis].astype("float32") / np.float32(255)


def _digits(test_share=0.2, seed=0):
    """The 1797 digits of scikit-learn: 8x8 pixels times 3, in a border of 2."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.kron(digits.images, np.ones((3, 3))) / 16
    images = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., np.newaxis]
    images = images.astype("float32")
    labels = digits.target.astype("int32")
    order = np.random.default_rng(seed).permutation(len(images))
    test, train = np.split(order, [int(test_share * len(images))])
    return ImageData(
        "digits",
        "scikit-learn",
        tuple(str(name) for name in digits.target_names),
        images[train],
        labels[train],
        images[test],
        labels[test],
    )
