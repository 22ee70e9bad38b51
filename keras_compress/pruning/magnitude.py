"""`MagnitudePruning`: small weights become zero while a model trains."""

from collections.abc import Callable

import keras
from absl import logging

from keras_compress.kernels import is_built
from keras_compress.optimizer_steps import current_step, steps_of_fit
from keras_compress.pruning.any_schedule import KEEP, as_schedule
from keras_compress.pruning.criteria import as_criterion
from keras_compress.pruning.patterns import as_pattern
from keras_compress.pruning.pruned_kernels import PrunedKernels
from keras_compress.pruning.report import PruningReport
from keras_compress.pruning.schedules import check_sparsity
from keras_compress.undo import undo_after_fit

_SCOPES = ("layer", "model")


class MagnitudePruning(keras.callbacks.Callback):
    """Prune a model while `fit` trains it.

    At the steps that the schedule names, the weights of smallest magnitude become
    zero, so that exactly round(n * (1 - sparsity)) of a kernel's n weights are kept,
    the first ones where magnitudes are equal. The optimizer holds those zeros inside
    its compiled step: they are exact after every step. Until the schedule ends a pruned
    weight comes back when the step before an update makes it large enough.

    The model stays an ordinary one: there is nothing to strip, and the saved file is
    plain Keras. What a `fit` put on it is taken off when it ends. `logs["sparsity"]` is
    the share of zeros in the pruned kernels after each epoch; list callbacks that read
    it, such as TensorBoard, after this one.

    Args:
        schedule: Sparsity in [0, 1) from the first step on; `"keep"`: today's zeros
            stay zeros; a `kc.ConstantSparsity` or `kc.PolynomialDecay`, TFMOT's too; or
            a function of the optimizer's step that returns `(update, sparsity)`.
        pattern: None: weights one by one. `"n:m"`: at most n of m in a row along the
            input channels are kept. `kc.Block((rows, columns))`: whole blocks.
        scope: `"layer"`: every kernel has the sparsity. `"model"`: all weights are
            compared with one another and all kernels together have it.
        layers: Called with a layer; whether to prune it. By default every layer with a
            trainable kernel but Embedding and recurrent layers, which this may choose.
        criterion: `"magnitude"`, `"taylor"` (|w * g| since the last update) or
            `"movement"` (-w * g since the fit began). The last two keep a float32 per
            weight and make their first masks after the first step.
        max_layer_sparsity: With `scope="model"` no kernel becomes sparser.

    Attributes:
        report: After `fit` the table of all kernels and of the layers left alone.

    Raises:
        ValueError: On a wrong argument. When `fit` begins, before any update: if there
            is no kernel to prune, `layers` chooses a frozen layer, a block does not
            fit, a pattern cannot have the schedule's last sparsity, or shares of a fit
            of unknown length are asked for. For a model that builds itself in its first
            step, after that one.

    Example:

    >>> import keras, numpy as np
    >>> import keras_compress as kc
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 10), "float32"), np.ones((8, 10), "float32")
    >>> history = model.fit(x, y, callbacks=[kc.MagnitudePruning(0.8)], verbose=0)
    >>> round(kc.sparsity(model), 4)
    0.8

    Source: Zhu and Gupta 2017, 1710.01878.
    """

    def __init__(
        self,
        schedule,
        pattern=None,
        scope: str = "layer",
        layers: Callable | None = None,
        criterion="magnitude",
        max_layer_sparsity: float = 1.0,
    ) -> None:
        super().__init__()
        self.schedule = as_schedule(schedule)
        self.pattern = as_pattern(pattern)
        self.criterion = as_criterion(criterion)
        if scope not in _SCOPES:
            raise ValueError(
                f'`scope` must be "layer" or "model". Received: scope={scope!r}'
            )
        if layers is not None and not callable(layers):
            raise ValueError(
                "`layers` must be a function of a layer that says whether to prune it. "
                f"Received: layers={layers!r}"
            )
        self.scope, self.layers = scope, layers
        self.max_layer_sparsity = max_layer_sparsity
        self.report: PruningReport | None = None
        self._check_sparsities()
        self._forget()

    def on_train_begin(self, logs=None) -> None:
        """Refuse what cannot be pruned; put masks on the kernels."""
        if self._undo is not None:
            self._undo()
        self._forget()
        needs_length = self.schedule != KEEP and self.schedule.needs_length
        if needs_length and self.params.get("steps") is None:
            raise ValueError(
                "The schedule has shares of the fit, whose length is not known. Give "
                f"steps (int), or `steps_per_epoch`. Received: {self.schedule}"
            )
        if is_built(self.model):
            self._put_masks()

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """In the first epoch, be it resumed: make the masks that are due."""
        if self._steps is None:
            self._steps = self._in_steps(epoch)
            if self._pruned:
                self._make_first_masks()

    def on_train_batch_begin(self, batch, logs=None) -> None:
        """Let weights come back in a step that ends in an update."""
        may_grow = self._steps != KEEP and not self.criterion.needs_gradients
        if self._pruned and may_grow:
            last = current_step(self.model) + self.model.steps_per_execution
            update = self._steps.last_update(last, after=self._last_update)
            self._pruned.grow(update is not None)

    def on_train_batch_end(self, batch, logs=None) -> None:
        """Make the masks that are due."""
        if not self._pruned:
            self._put_masks()
            self._make_first_masks()
        elif self._steps != KEEP:
            step = self._steps.last_update(
                current_step(self.model), after=self._last_update
            )
            if step is None:
                self._pruned.settle()
            else:
                self._update(step)

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Tell the sparsity."""
        if logs is not None and self._pruned:
            logs["sparsity"] = self._pruned.sparsity

    def on_train_end(self, logs=None) -> None:
        """Report, and leave the model with the user's constraints."""
        if not self._pruned:
            return
        # Keras has just put averaged weights into a model trained with `use_ema`.
        self._pruned.apply()
        self.report = self._pruned.report()
        logging.info("Pruned:\n%s", self.report)
        steps = self._steps
        if steps != KEEP and steps.ends and current_step(self.model) < steps.end_step:
            logging.warning(
                "fit ended at step %d, before the schedule's end step %d: sparsity is "
                "%.4f where %.4f was to be reached.",
                *(
                    current_step(self.model),
                    steps.end_step,
                    self.report.sparsity,
                    steps.final,
                ),
            )
        self._undo()
        self._forget()

    def _forget(self) -> None:
        self._pruned: PrunedKernels | None = None
        self._undo: Callable | None = None
        self._steps = None
        self._last_update = -1

    def _check_sparsities(self) -> None:
        cap = self.max_layer_sparsity
        final = None if self.schedule == KEEP else self.schedule.final
        if cap != 1:
            check_sparsity("max_layer_sparsity", cap)
            if self.scope != "model" or (final is not None and final > cap):
                raise ValueError(
                    '`max_layer_sparsity` needs scope="model" and a schedule whose '
                    "last sparsity is not above it. Received: max_layer_sparsity="
                    f"{cap}, scope={self.scope!r}, last sparsity {final}"
                )
        if final is not None:
            self.pattern.check_final(final)

    def _put_masks(self) -> None:
        cap = None if self.scope == "layer" else self.max_layer_sparsity
        self._pruned = PrunedKernels(
            self.model, self.layers, self.pattern, self.criterion, cap
        )
        self._undo = undo_after_fit(self.model, self._pruned.release)

    def _in_steps(self, epoch: int):
        """The schedule in steps; shares count from where epoch 0 began."""
        if self.schedule == KEEP or not self.schedule.needs_length:
            return self.schedule
        start, per_epoch = steps_of_fit(self.model, self.params, epoch)
        return self.schedule.for_fit(start, int(per_epoch * self.params["epochs"]))

    def _make_first_masks(self) -> None:
        """The masks of the last update before now; after a resumption those of then."""
        zeros = self._pruned.sparsity
        if self._steps == KEEP:
            if not zeros:
                raise ValueError(
                    '`MagnitudePruning("keep")` needs a model with zeros to keep. '
                    f"Received: model {self.model.name!r}, whose kernels have none"
                )
            self._pruned.keep_zeros()
            return
        now = current_step(self.model)
        step = self._steps.last_update(now)
        if step is None:
            # A function of the step does not say what was before.
            if self._steps.final is None and now:
                self._pruned.keep_zeros()
        elif not self.criterion.needs_gradients:
            self._update(step)
        elif now and zeros >= self._steps.sparsity(step):
            self._pruned.keep_zeros()
            self._last_update = step

    def _update(self, step: int) -> None:
        self._pruned.update(self._steps.sparsity(step))
        self._last_update = step
