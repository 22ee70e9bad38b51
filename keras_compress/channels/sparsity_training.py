"""`ChannelSparsity`: the channels that count least shrink while a model trains."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_compress.channels.groups import ChannelGroup, CoupledAxis, channel_groups
from keras_compress.channels.importance import BatchNormScale, GroupNorm
from keras_compress.undo import undo_after_fit

# A channel below this share of its group's mean importance is called weak.
_WEAK = 0.01


class ChannelSparsity(keras.callbacks.Callback):
    """Train for surgery: shrink the channels that `prune_channels` would remove.

    Adds a penalty to the loss, whose gradient pulls the weights of a channel towards
    zero, those of unimportant channels harder. What little they still do then costs
    little accuracy to remove.

    - `"group_l2"`: the gradient of each weight w of channel i gets
      `strength * 2 ** (4 * (max - I_i) / (max - min)) * w`, where I_i is the norm of
      all the group's weights of that channel, and max and min are taken over the group.
      I is computed before the first epoch and anew after each.
    - `"bn_scale"`: the gradient of each gamma of BatchNormalization gets
      `strength * sign(gamma)`.

    To Keras the penalty is a regularizer of the weights while `fit` runs, beside those
    that they have: it is part of `logs["loss"]` and `logs["val_loss"]`.
    `logs["weak_channels"]` is the share of the channels that can be removed whose
    importance is below 1 % of their group's mean.

    Args:
        strength: Above 0. The sources use 5e-4 ("group_l2"), and 1e-4 or 1e-5
            ("bn_scale"), with SGD.
        importance: `"group_l2"` or `"bn_scale"`; give `prune_channels` the same one
            ("l2" or "bn_scale").
        layers: Called with a layer that makes channels; whether they may be removed.
            By default all.

    Raises:
        ValueError: On a wrong argument. When `fit` begins: if the model is subclassed,
            not built or quantization-aware, or has no channels that can be removed.

    Example:

    >>> import keras, numpy as np
    >>> import keras_compress as kc
    >>> layers = [keras.layers.Dense(32, "relu"), keras.layers.Dense(1)]
    >>> model = keras.Sequential([keras.Input((4,)), *layers])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    >>> history = model.fit(x, y, callbacks=[kc.ChannelSparsity(1e-3)], verbose=0)
    >>> smaller = kc.prune_channels(model, macs=0.5)

    Sources: Fang et al. 2023, 2301.12900 ("group_l2"); Liu et al. 2017, 1708.06519
    ("bn_scale").
    """

    def __init__(
        self,
        strength: float = 5e-4,
        importance: str = "group_l2",
        layers: Callable | None = None,
    ) -> None:
        super().__init__()
        if not (isinstance(strength, int | float) and 0 < strength < math.inf):
            raise ValueError(
                "`strength` must be a number above 0, for example 5e-4. Received: "
                f"strength={strength!r}"
            )
        if importance not in _PENALTIES:
            raise ValueError(
                f"`importance` must be one of {', '.join(map(repr, _PENALTIES))}. "
                f"Received: importance={importance!r}"
            )
        self.strength, self.importance, self.layers = strength, importance, layers
        self._forget()

    def on_train_begin(self, logs=None) -> None:
        """Put the penalties on the weights."""
        if self._undo is not None:
            self._undo()
        self._forget()
        self._groups = self._penalised_groups()
        penalty = _PENALTIES[self.importance]
        axes = [a for group in self._groups for a in penalty.axes(group)]
        with self.model.distribute_strategy.scope():
            for axis in axes:
                on_variable = self._on_variables.get(id(axis.variable))
                if on_variable is None:
                    on_variable = _ChannelPenalty(axis.variable, penalty.power)
                    self._on_variables[id(axis.variable)] = on_variable
                on_variable.add_axis(axis.axis)
        penalties = list(self._on_variables.values())
        self._undo = undo_after_fit(
            self.model, lambda: [each.release() for each in penalties]
        )

    def on_epoch_begin(self, epoch, logs=None) -> None:
        """Set each channel's strength by its importance."""
        if not self._scores:
            self._measure()
        penalty = _PENALTIES[self.importance]
        strengths = {
            key: [np.zeros(on.shape[axis], "float32") for axis in on.axes]
            for key, on in self._on_variables.items()
        }
        for group, scores in zip(self._groups, self._scores, strict=True):
            of_channels = self.strength * penalty.growth(scores)
            for axis in penalty.axes(group):
                on = self._on_variables[id(axis.variable)]
                target = strengths[id(axis.variable)][on.axes.index(axis.axis)]
                target[axis.index] = of_channels[:, None]
        for key, on in self._on_variables.items():
            on.assign(strengths[key])

    def on_epoch_end(self, epoch, logs=None) -> None:
        """Measure the importances, and tell how many channels are weak."""
        self._measure()
        if logs is not None:
            weak = [scores < _WEAK * scores.mean() for scores in self._scores]
            logs["weak_channels"] = float(np.concatenate(weak).mean())

    def on_train_end(self, logs=None) -> None:
        """Leave the model with its own regularizers."""
        self._undo()
        self._forget()

    def _forget(self) -> None:
        self._groups: list[ChannelGroup] = []
        self._scores: list[np.ndarray] = []
        self._on_variables: dict[int, _ChannelPenalty] = {}
        self._undo: Callable | None = None

    def _penalised_groups(self) -> list[ChannelGroup]:
        penalty = _PENALTIES[self.importance]
        groups = channel_groups(self.model, layers=self.layers)
        penalised = [g for g in groups if not g.frozen and penalty.axes(g)]
        if not penalised:
            reasons = {g.name: g.reason for g in groups if g.frozen}
            missing = "" if reasons else "no BatchNormalization with a gamma"
            raise ValueError(
                f"Model {self.model.name!r} has no channels that "
                f'"{self.importance}" could shrink. Expected at least one layer whose '
                "channels can be removed; `kc.channel_groups` lists them. Received: "
                + ("; ".join(f"{k}: {v}" for k, v in reasons.items()) or missing)
            )
        return penalised

    def _measure(self) -> None:
        score = _PENALTIES[self.importance].score
        self._scores = [score(group, self.model) for group in self._groups]


@dataclass(frozen=True)
class _Penalty:
    """What is penalised: sum of strength * |w|^power / power over the axes' weights."""

    score: Callable
    power: int
    roles: tuple[str, ...]

    def axes(self, group: ChannelGroup) -> list[CoupledAxis]:
        """The axes whose weights shrink."""
        return [axis for axis in group.axes if axis.role in self.roles]

    def growth(self, scores: np.ndarray) -> np.ndarray:
        """The factor of each channel's strength."""
        return np.ones_like(scores)


class _GroupNormPenalty(_Penalty):
    def growth(self, scores: np.ndarray) -> np.ndarray:
        """1 for the largest norm of the group to 16 for the smallest."""
        norms = np.sqrt(scores)
        spread = norms.max() - norms.min()
        return 2.0 ** (4 * (norms.max() - norms) / spread) if spread else norms**0


class _BatchNormPenalty(_Penalty):
    def axes(self, group: ChannelGroup) -> list[CoupledAxis]:
        """The gammas of BatchNormalization."""
        norm = keras.layers.BatchNormalization
        return [a for a in super().axes(group) if isinstance(a.layer, norm)]


_PENALTIES = {
    "group_l2": _GroupNormPenalty(GroupNorm(2), 2, ("out", "in", "scale")),
    "bn_scale": _BatchNormPenalty(BatchNormScale(), 1, ("scale",)),
}


class _ChannelPenalty:
    """A weight's regularizer while `fit` runs: the user's, and one of its channels.

    The strengths are variables, so new ones need no new trace.
    """

    def __init__(self, variable: keras.Variable, power: int) -> None:
        self._variable, self._power = variable, power
        self._users = variable.regularizer
        self._strengths: dict[int, keras.Variable] = {}
        self.shape = variable.shape
        variable.regularizer = self

    @property
    def axes(self) -> list[int]:
        """The axes along which channels lie."""
        return list(self._strengths)

    def add_axis(self, axis: int) -> None:
        """Penalise the channels along this axis too."""
        if axis not in self._strengths:
            self._strengths[axis] = keras.Variable(
                np.zeros(self.shape[axis], "float32"),
                trainable=False,
                name="channel_strengths",
                aggregation="only_first_replica",
            )

    def assign(self, strengths: list[np.ndarray]) -> None:
        """Set the strength of each channel, by axis."""
        for variable, value in zip(self._strengths.values(), strengths, strict=True):
            variable.assign(value)

    def __call__(self, weights):
        """The penalty, a float32 scalar."""
        values = ops.cast(ops.convert_to_tensor(weights), "float32")
        strengths = 0.0
        for axis, strength in self._strengths.items():
            others = [i for i in range(len(self.shape)) if i != axis]
            strengths += ops.expand_dims(ops.convert_to_tensor(strength), others)
        penalty = _weighted_sum(values, strengths, self._power)
        return penalty if self._users is None else penalty + self._users(weights)

    def release(self) -> None:
        """Give the weight its own regularizer back."""
        if self._variable.regularizer is self:
            self._variable.regularizer = self._users


def _weighted_sum(weights, strengths, power: int):
    """The sum of strengths * |weights|^power / power.

    Its gradient is at hand: TensorFlow's own would go through large weights twice as
    often.
    """

    @ops.custom_gradient
    def weighted_sum(weights):
        slopes = (ops.sign(weights) if power == 1 else weights) * strengths
        total = ops.sum(weights * slopes) / power
        return total, lambda upstream: upstream * slopes

    return weighted_sum(weights)
