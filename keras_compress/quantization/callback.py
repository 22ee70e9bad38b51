"""`QuantizationSchedule`: when rounding begins and when ranges and statistics stop."""

import keras

from keras_compress.optimizer_steps import (
    check_step,
    current_step,
    inner_optimizer,
    steps_of_fit,
)
from keras_compress.quantization.affine import AffineWrapper, FoldedBatchNormalization
from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.wrapper import QuantizeWrapper
from keras_compress.training_step import retrace_training_step
from keras_compress.undo import undo_after_fit


class QuantizationSchedule(keras.callbacks.Callback):
    """Switch parts of quantization-aware training on or off during one `fit`.

    Steps are those of the optimizer, so a training that is resumed goes on where it
    was. A switch is thrown between two batches; the step is then traced again.

    Args:
        freeze_ranges_at: When the ranges of activations stop moving: a step (int), or a
            fraction of this fit (float in [0, 1]). None: never.
        freeze_batchnorm_at: When BatchNormalization layers stop learning and use their
            moving statistics, as the device will; likewise.
        begin_at: When values begin to be rounded; until then the model trains in float
            and its ranges are learned.

    Raises:
        ValueError: If a time is negative or of another kind, or at the start of `fit`
            if the model was not made by `quantize_aware` or a fraction is given and
            the length of the fit is not known, or the optimizer has `use_ema` where
            BatchNormalization shall be frozen.

    Example:

    ```python
    schedule = kc.QuantizationSchedule(freeze_ranges_at=0.5, freeze_batchnorm_at=0.7)
    aware.fit(x, y, epochs=2, callbacks=[schedule])
    ```

    Source: Krishnamoorthi 2018, 1806.08342 (freezing); Jacob et al. 2018, 1712.05877.
    """

    def __init__(
        self, freeze_ranges_at=None, freeze_batchnorm_at=None, begin_at=0
    ) -> None:
        super().__init__()
        times = {
            "freeze_ranges_at": freeze_ranges_at,
            "freeze_batchnorm_at": freeze_batchnorm_at,
            "begin_at": begin_at,
        }
        for name, time in times.items():
            check_step(name, time, *([] if name == "begin_at" else [None]))
        self._times = times
        self._steps: dict[str, int] = {}
        self._done: set[str] = set()
        self._trainable: dict = {}
        self._undo_now = lambda: None

    def on_train_begin(self, logs=None) -> None:
        """Refuse what cannot be scheduled."""
        if not _layers(self.model, FakeQuantize):
            raise ValueError(
                "`QuantizationSchedule` needs a model made by `kc.quantize_aware`. "
                f"Received: model {self.model.name!r}, which has no quantised layer"
            )
        for name, time in self._times.items():
            if isinstance(time, float) and self.params.get("steps") is None:
                raise ValueError(
                    f"`{name}` must be a step (int), since the length of this fit is "
                    "not known; or give `steps_per_epoch`. Received: "
                    f"{name}={time!r}"
                )
        frozen = self._times["freeze_batchnorm_at"] is not None
        if frozen and inner_optimizer(self.model.optimizer).use_ema:
            raise ValueError(
                "`freeze_batchnorm_at` needs an optimizer without `use_ema`, whose "
                "averages Keras can only keep for a fixed set of weights; use "
                "keras.callbacks.SwapEMAWeights or leave one of them out. Received: "
                f"optimizer={type(self.model.optimizer).__name__}(use_ema=True)"
            )
        self._steps, self._done = {}, set()
        self._undo_now = undo_after_fit(self.model, self._undo)

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Turn times into steps in the first epoch, be it resumed; throw switches."""
        if not self._steps:
            self._steps = {
                name: self._in_steps(time, epoch)
                for name, time in self._times.items()
                if time is not None
            }
            begun = current_step(self.model) >= self._steps["begin_at"]
            if not begun and self._set_enabled(False):
                self._retrace()
        self._throw()

    def on_train_batch_begin(self, batch, logs=None) -> None:
        """Throw the switches that are due."""
        self._throw()

    def on_train_end(self, logs=None) -> None:
        """Let a later fit without this callback train everything again."""
        self._undo_now()

    def _undo(self) -> None:
        self._set_enabled(True)
        for layer in _layers(self.model, FakeQuantize):
            layer.update = True
        for layer, trainable in self._trainable.items():
            layer.trainable = trainable
        self._trainable = {}
        self._retrace_inference()

    def _in_steps(self, time, epoch: int) -> int:
        """The step of the optimizer; a fraction counts from where epoch 0 began."""
        if isinstance(time, int):
            return time
        start, per_epoch = steps_of_fit(self.model, self.params, epoch)
        return start + round(time * per_epoch * self.params["epochs"])

    def _throw(self) -> None:
        now = current_step(self.model)
        due = [n for n in self._steps if n not in self._done and now >= self._steps[n]]
        self._done.update(due)
        if any([getattr(self, f"_{name}")() for name in due]):
            self._retrace()

    # Each switch says whether it changed anything.

    def _begin_at(self) -> bool:
        return self._set_enabled(True)

    def _freeze_ranges_at(self) -> bool:
        return _set(_layers(self.model, FakeQuantize), "update", False)

    def _freeze_batchnorm_at(self) -> bool:
        norms = _layers(self.model, keras.layers.BatchNormalization)
        self._trainable = {layer: layer.trainable for layer in norms}
        return _set(norms, "trainable", False)

    def _set_enabled(self, enabled: bool) -> bool:
        layers = _layers(self.model, (FakeQuantize, QuantizeWrapper))
        return _set(layers, "enabled", enabled)

    def _retrace(self) -> None:
        retrace_training_step(self.model)
        self._retrace_inference()

    def _retrace_inference(self) -> None:
        for make in ("test", "predict"):
            function = getattr(self.model, f"{make}_function")
            if function is not None:
                getattr(self.model, f"make_{make}_function")(force=True)


def _set(layers: list, name: str, value: bool) -> bool:
    """Set the layers' attribute; whether it was another for any of them."""
    changed = [layer for layer in layers if getattr(layer, name) != value]
    for layer in changed:
        setattr(layer, name, value)
    return bool(changed)


def _layers(model, kinds) -> list:
    """The layers of these kinds, those inside our wrappers too."""
    found = []
    for layer in model.layers:
        wrapped = isinstance(layer, (AffineWrapper, FoldedBatchNormalization))
        inner = layer.layer if wrapped else layer
        found += [item for item in {layer, inner} if isinstance(item, kinds)]
    return found
