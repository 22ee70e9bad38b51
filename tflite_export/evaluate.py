"""Keras metrics of a `.tflite` file on a dataset."""

from collections.abc import Iterable, Iterator

import numpy as np

from tflite_export.predict import checked_inputs, run_batches
from tflite_export.runtime import LoadedFile, load

_BATCH = 32


def evaluate(path, dataset, metrics, *, kernels: str = "xnnpack") -> dict[str, float]:
    """Keras metrics of a `.tflite` file, as `model.evaluate` gives them for a model.

    One batch of the dataset is in memory at a time.

    Args:
        path: File name of a `.tflite` file.
        dataset: A `tf.data.Dataset` of `(x, y)` or `(x, y, sample_weight)` batches, or
            one tuple of such arrays. `x` holds real numbers as `predict` takes them;
            for a file with several outputs `y` is a dict by output name.
        metrics: A list as `model.compile` takes it, of `keras.metrics.Metric` objects,
            functions and names such as "accuracy"; for several outputs a dict of such
            lists by output name. Metric objects are reset first. Sample weights, where
            there are any, weight every metric, like the `weighted_metrics` of
            `model.compile`.
        kernels: As `predict` takes them.

    Returns:
        The value of each metric by the name that Keras gives it.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run, or the data or the metrics do not fit.

    Example:

    ```python
    scores = tflite_export.evaluate("m.tflite", (x_test, y_test), ["accuracy"])
    print(scores["accuracy"])
    ```
    """
    loaded = load(path, kernels=kernels)
    scorer = _scorer(loaded, metrics)
    result = None
    for x, y, weight in _batches(dataset):
        arrays = checked_inputs(loaded, x)
        outputs = run_batches(loaded, arrays)
        _check_targets(y, outputs, len(next(iter(arrays.values()))))
        predicted = outputs if len(outputs) > 1 else next(iter(outputs.values()))
        try:
            result = scorer.compute_metrics(None, y, predicted, weight)
        # TensorFlow's own errors are no ValueErrors.
        except Exception as error:
            raise ValueError(
                "`metrics` must fit the dataset's targets and the file's outputs "
                f"{_shapes(outputs)}. "
                f"Received: {error}"
            ) from error
    if result is None:
        raise ValueError(
            "`dataset` must hold at least one batch. Received: an empty dataset"
        )
    return {name: float(value) for name, value in result.items() if name != "loss"}


def _scorer(loaded: LoadedFile, metrics):
    """A model with the file's outputs, for Keras to resolve and update the metrics."""
    import keras

    if not metrics or not isinstance(metrics, (list, tuple, dict)):
        raise ValueError(
            "`metrics` must be a list of Keras metrics or their names, at least one, "
            f"or a dict of such lists by output name. Received: metrics={metrics!r}"
        )
    for metric in keras.tree.flatten(metrics):
        if isinstance(metric, keras.metrics.Metric):
            metric.reset_state()
    ends = {
        name: keras.Input(tuple(map(int, detail["shape"][1:])))
        for name, detail in loaded.outputs.items()
    }
    scorer = keras.Model(list(ends.values()), ends)
    scorer.compile(weighted_metrics=metrics)
    return scorer


def _batches(dataset) -> Iterator[tuple]:
    if isinstance(dataset, tuple) and len(dataset) in (2, 3):
        yield from _slices(dataset)
        return
    # A dataset that repeats for ever says so.
    endless = hasattr(dataset, "cardinality") and int(dataset.cardinality()) == -1
    if endless or not isinstance(dataset, Iterable):
        raise ValueError(
            "`dataset` must be a finite tf.data.Dataset of (x, y) batches, or a tuple "
            f"(x, y) of arrays. Received: {'an endless ' * endless}"
            f"{type(dataset).__name__}"
        )
    for batch in dataset:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(
                "`dataset` must yield (x, y) or (x, y, sample_weight) batches. "
                f"Received: a {type(batch).__name__}"
            )
        yield (*batch, None)[:3]


def _slices(arrays: tuple) -> Iterator[tuple]:
    import keras

    arrays = keras.tree.map_structure(np.asarray, arrays)
    lengths = {len(array) if array.ndim else 0 for array in keras.tree.flatten(arrays)}
    if len(lengths) != 1:
        raise ValueError(
            "`dataset` must hold arrays with one row for each example. Received: "
            f"lengths {sorted(lengths)}"
        )
    for start in range(0, lengths.pop(), _BATCH):
        rows = keras.tree.map_structure(
            lambda array, start=start: array[start : start + _BATCH], arrays
        )
        yield (*rows, None)[:3]


def _check_targets(y, outputs: dict, examples: int) -> None:
    if len(outputs) > 1 and (not isinstance(y, dict) or set(y) != set(outputs)):
        got = sorted(map(str, y)) if isinstance(y, dict) else type(y).__name__
        raise ValueError(
            "`dataset` must give y as a dict with one entry for each output of the "
            f"file, {list(outputs)}. Received: {got}"
        )
    for target in y.values() if isinstance(y, dict) else [y]:
        shape = np.shape(target)
        if shape[:1] != (examples,):
            raise ValueError(
                f"`dataset` must give one row of y for each example, {examples} in "
                f"this batch. Received: y of shape {shape}"
            )


def _shapes(outputs: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {values.shape}" for name, values in outputs.items())
