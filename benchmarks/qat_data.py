"""Fashion-MNIST for the quantization-aware benchmarks."""

import contextlib
import functools
import io
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "examples"))

import image_data


@functools.cache
def images() -> image_data.ImageData:
    """All images.

    Raises:
        SystemExit: If Fashion-MNIST cannot be had.
    """
    with contextlib.redirect_stdout(io.StringIO()) as said:
        data = image_data.load_images()
    if data.name != "Fashion-MNIST":
        raise SystemExit(f"This benchmark needs Fashion-MNIST.\n{said.getvalue()}")
    return data


def training_images(examples: int) -> tuple:
    """The first `examples` training images and their labels."""
    data = images()
    return data.x_train[:examples], data.y_train[:examples]


def test_images(examples: int) -> tuple:
    """The first `examples` test images and their labels."""
    data = images()
    return data.x_test[:examples], data.y_test[:examples]
