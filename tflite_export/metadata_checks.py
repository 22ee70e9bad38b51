"""Whether a `.tflite` file is an image classifier that its metadata describes."""

from collections.abc import Sequence

import numpy as np

from tflite_export.flatbuffer import dtype_name, listed, shape_of

_DTYPES = ("float32", "uint8")
_MAX_PIXEL_ERROR = 1.0


def checked_labels(labels) -> tuple[str, ...]:
    """The labels as a tuple; ValueError unless a labels file can hold them."""
    labels = () if isinstance(labels, str) else tuple(labels)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(
            "`labels` must be a sequence of str, one per class. Received: "
            f"labels={labels}"
        )
    for label in labels:
        # Readers split the file at line ends, and drop blank lines.
        if not label.strip() or label.splitlines() != [label]:
            raise ValueError(
                "Every label must be one line that is not blank. Received: "
                f"{label!r} at index {labels.index(label)}"
            )
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise ValueError(f"Labels must not repeat. Received twice: {repeated}")
    return labels


def checked_floats(field: str, value) -> tuple[float, ...]:
    """One or more numbers in single precision; ValueError for anything else."""
    try:
        array = np.atleast_1d(np.asarray(value, np.float32))
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise ValueError(
            f"`{field}` must be a finite number, or one per channel. Received: "
            f"{field}={value!r}"
        )
    return tuple(array.tolist())


def image_and_scores(model) -> tuple:
    """The input and the output tensor of a checked `ModelT`."""
    graph = model.subgraphs[0]
    return (
        graph.tensors[listed(graph.inputs)[0]],
        graph.tensors[listed(graph.outputs)[0]],
    )


def check_fit(
    model, labels: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> None:
    """ValueError unless the `ModelT` is an image classifier that these describe."""
    graph = model.subgraphs[0]
    ends = (len(listed(graph.inputs)), len(listed(graph.outputs)))
    if len(model.subgraphs) != 1 or ends != (1, 1):
        raise ValueError(
            "Image metadata needs a file of one graph with one input and one output. "
            f"Received: {len(model.subgraphs)} graphs, {ends[0]} inputs and {ends[1]} "
            "outputs"
        )
    image, scores = image_and_scores(model)
    for kind, tensor in (("input", image), ("output", scores)):
        if dtype_name(tensor) not in _DTYPES:
            raise ValueError(
                f"Image metadata needs a float32 or uint8 {kind}; MediaPipe refuses "
                f'others. Export with {kind}_dtype="float32" or "uint8". Received: '
                f"{dtype_name(tensor)}"
            )
    shape = shape_of(image)
    if len(shape) != 4 or shape[0] != 1 or shape[3] not in (1, 3):
        raise ValueError(
            "Image metadata needs an input of shape (1, height, width, channels) with "
            "1 or 3 channels. Export with batch_size=1, channels last. Received: "
            f"shape={shape}"
        )
    if shape_of(scores) != (1, len(labels)):
        raise ValueError(
            "Image metadata needs an output of shape (1, classes) and one label per "
            f"class. Received: shape={shape_of(scores)}, {len(labels)} labels"
        )
    if len(mean) not in (1, shape[3]):
        raise ValueError(
            f"`mean` and `std` must have one number, or {shape[3]}, one per channel. "
            f"Received: mean={tuple(mean)}, std={tuple(std)}"
        )
    if dtype_name(image) == "uint8":
        _check_raw_pixels(image, mean, std)


def _check_raw_pixels(image, mean: Sequence[float], std: Sequence[float]) -> None:
    """ValueError unless the uint8 input's own scale is the normalisation.

    MediaPipe does not normalise for a uint8 input: it hands over the raw pixels.
    """
    scale, zero_point = 1.0, 0
    if image.quantization is not None and image.quantization.scale is not None:
        scale = float(image.quantization.scale[0])
        zero_point = int(image.quantization.zeroPoint[0])
    pixels = np.arange(256)
    values = (pixels - zero_point) * scale
    seen = values[:, np.newaxis] * np.asarray(std) + np.asarray(mean)
    error = np.abs(seen - pixels[:, np.newaxis]).max()
    if error > _MAX_PIXEL_ERROR:
        low, high = values[0], values[-1]
        raise ValueError(
            "MediaPipe hands raw pixels to a uint8 input, so the input must stand for "
            "(pixel - mean) / std over 0..255, with the same mean and std in every "
            "channel. Add an all black and an all white picture to the representative "
            'data, check `mean` and `std`, or export with input_dtype="float32". '
            f"Received: an input from {low:.4g} to {high:.4g}, mean={tuple(mean)}, "
            f"std={tuple(std)}: up to {error:.1f} of 255 off"
        )
