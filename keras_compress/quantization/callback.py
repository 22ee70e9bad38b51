"""`QuantizationSchedule`: when rounding begins and when ranges and statistics stop."""

import keras

from keras_compress.quantization.fake_quant import FakeQuantize
from keras_compress.quantization.wrapper import AffineWrapper, QuantizeWrapper


class QuantizationSchedule(keras.callbacks.Callback):
    """Switch parts of quantization-aware training on or off during one `fit`.

    Steps are those of the optimizer, so a training that is resumed goes on where it
    was. A switch is thrown between two batches; the step is then traced again.

    Args:
        freeze_ranges_at: When the ranges of activations stop moving: a step (int), or a
            fraction of the fit (float in [0, 1]). None: never.
        freeze_batchnorm_at: When BatchNormalization layers stop learning and use their
            moving statistics, as the device will; likewise.
        begin_at: When values begin to be rounded; until then the model trains in float
            and its ranges are learned.

    Raises:
        ValueError: If a time is negative or of another kind, or at the start of `fit`
            if the model was not made by `quantize_aware` or a fraction is given and
            the length of the fit is not known.

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
            _check_time(name, time)
        self._times = times
        self._steps: dict[str, int] = {}
        self._done: set[str] = set()
        self._trainable: dict = {}

    def on_train_begin(self, logs=None) -> None:
        """Turn times into steps and throw the switches that are due."""
        if not _layers(self.model, FakeQuantize):
            raise ValueError(
                "`QuantizationSchedule` needs a model made by `kc.quantize_aware`. "
                f"Received: model {self.model.name!r}, which has no quantised layer"
            )
        self._done, self._trainable = set(), {}
        self._steps = {
            name: self._in_steps(name, time)
            for name, time in self._times.items()
            if time is not None
        }
        self._set_enabled(False)
        self._throw()

    def on_train_batch_begin(self, batch, logs=None) -> None:
        """Throw the switches that are due."""
        self._throw()

    def on_train_end(self, logs=None) -> None:
        """Let a later fit without this callback train everything again."""
        self._set_enabled(True)
        for layer in _layers(self.model, FakeQuantize):
            layer.update = True
        for layer, trainable in self._trainable.items():
            layer.trainable = trainable
        self._retrace()

    def _in_steps(self, name: str, time) -> int:
        if isinstance(time, int):
            return time
        steps, epochs = self.params.get("steps"), self.params.get("epochs")
        if steps is None:
            raise ValueError(
                f"`{name}` must be a step (int), since the length of this fit is not "
                "known; or give `steps_per_epoch`. Received: "
                f"{name}={time!r}"
            )
        return round(time * steps * epochs)

    def _throw(self) -> None:
        due = [name for name in self._steps if name not in self._done]
        if not due:
            return
        now = int(self.model.optimizer.iterations)
        due = [name for name in due if now >= self._steps[name]]
        for name in due:
            self._done.add(name)
            getattr(self, f"_{name}")()
        if due:
            self._retrace()

    def _begin_at(self) -> None:
        self._set_enabled(True)

    def _freeze_ranges_at(self) -> None:
        for layer in _layers(self.model, FakeQuantize):
            layer.update = False

    def _freeze_batchnorm_at(self) -> None:
        for layer in _layers(self.model, keras.layers.BatchNormalization):
            self._trainable[layer] = layer.trainable
            layer.trainable = False

    def _set_enabled(self, enabled: bool) -> None:
        for layer in _layers(self.model, (FakeQuantize, QuantizeWrapper)):
            layer.enabled = enabled

    def _retrace(self) -> None:
        for make in ("train", "test", "predict"):
            function = getattr(self.model, f"{make}_function")
            if function is not None:
                getattr(self.model, f"make_{make}_function")(force=True)


def _check_time(name: str, time) -> None:
    good = time is None and name != "begin_at"
    if isinstance(time, int) and not isinstance(time, bool):
        good = time >= 0
    elif isinstance(time, float):
        good = 0 <= time <= 1
    if not good:
        raise ValueError(
            f"`{name}` must be a step (int of at least 0) or a fraction of the fit "
            f"(float from 0 to 1). Received: {name}={time!r}"
        )


def _layers(model, kinds) -> list:
    """The layers of these kinds, those inside our wrappers too."""
    found = []
    for layer in model.layers:
        inner = layer.layer if isinstance(layer, AffineWrapper) else layer
        found += [item for item in {layer, inner} if isinstance(item, kinds)]
    return found
