"""What layers of a model return, read off the model's own forward pass."""

import difflib
import functools
import threading
from collections.abc import Iterable

import keras
import tensorflow as tf


class Taps:
    """Keeps what chosen layers return whenever their model is called.

    While installed, a tap stands before the `call` of each layer, as an attribute of
    the layer; several `Taps` may be on one layer. Nothing is computed twice.

    Args:
        layers: the layers.
        model: if given, the model whose call begins a new forward pass. Without it
            `clear` does.
    """

    def __init__(self, layers: Iterable[keras.layers.Layer], model=None):
        self._layers = list({id(layer): layer for layer in layers}.values())
        self._model = model
        # Each replica traces its step in a thread of its own.
        self._pass = threading.local()

    def install(self) -> None:
        """Begin to read."""
        for layer in self._layers:
            _tap(layer).after.append(self._keep)
        if self._model is not None:
            _tap(self._model).before.append(self.clear)

    def remove(self) -> None:
        """Take the taps off; twice does no harm."""
        for layer in self._layers:
            _untap(layer, "after", self._keep)
        if self._model is not None:
            _untap(self._model, "before", self.clear)
        self._pass = threading.local()

    def clear(self) -> None:
        """Begin a new forward pass."""
        self._pass.kept = {}

    def take(self) -> dict[int, tf.Tensor]:
        """What the layers returned in this forward pass, by `id` of the layer.

        Raises:
            ValueError: a layer was not called, or more than once, or does not return
                one tensor that can be read from outside.
        """
        kept = getattr(self._pass, "kept", {})
        self.clear()
        return {id(layer): _one_tensor(layer, kept) for layer in self._layers}

    def _keep(self, layer, outputs):
        if not hasattr(self._pass, "kept"):
            self.clear()
        self._pass.kept.setdefault(id(layer), []).append(outputs)


class _Tap:
    """Stands before a layer's `call`."""

    def __init__(self, layer):
        self.layer = layer
        self.had = "call" in vars(layer)
        self.original = layer.call
        self.before, self.after = [], []
        functools.update_wrapper(self, self.original)

    def __call__(self, *args, **kwargs):
        for listen in self.before:
            listen()
        outputs = self.original(*args, **kwargs)
        for listen in self.after:
            listen(self.layer, outputs)
        return outputs


def _tap(layer) -> _Tap:
    tap = vars(layer).get("call")
    if not isinstance(tap, _Tap):
        # Past the layer's own `__setattr__`, which would track it.
        tap = vars(layer)["call"] = _Tap(layer)
    return tap


def _untap(layer, when: str, listener) -> None:
    tap = vars(layer).get("call")
    if not isinstance(tap, _Tap):
        return
    listeners = getattr(tap, when)
    if listener in listeners:
        listeners.remove(listener)
    if not (tap.before or tap.after):
        if tap.had:
            vars(layer)["call"] = tap.original
        else:
            del vars(layer)["call"]


def _one_tensor(layer, kept):
    calls = kept.get(id(layer), [])
    if len(calls) != 1:
        raise ValueError(
            f"The features of layer {layer.name!r} must come from one call in each "
            f"forward pass. Received: {len(calls)} calls. Choose a layer that is "
            "called once, by its own `__call__`."
        )
    outputs = calls[0]
    if not tf.is_tensor(outputs):
        raise ValueError(
            f"Layer {layer.name!r} must return one tensor for its features to be "
            f"compared. Received: {type(outputs).__name__}. Choose another layer."
        )
    # An eager tensor belongs to no graph, and a symbolic one to that of the step.
    if not tf.executing_eagerly() and not _belongs(outputs):
        raise ValueError(
            f"The features of layer {layer.name!r} are computed inside a tf.function "
            "or loop of the model, where they cannot be read. Choose a layer outside "
            "it, or remove the @tf.function."
        )
    return outputs


def _belongs(tensor) -> bool:
    return getattr(tensor, "graph", None) is tf.compat.v1.get_default_graph()


def find_layer(model: keras.Model, wanted) -> keras.layers.Layer:
    """A layer of a model, however deep it is nested; the outermost of its name.

    Args:
        model: a model.
        wanted: the layer's name, or the layer.

    Raises:
        ValueError: there is none, or several at the same depth.
    """
    depths = _by_depth(model)
    everything = [layer for depth in depths for layer in depth]
    if isinstance(wanted, keras.layers.Layer):
        if not any(layer is wanted for layer in everything):
            raise ValueError(
                f"Layer {wanted.name!r} is not in the model {model.name!r}. Expected a "
                "layer of this very model; or pass its name."
            )
        return wanted
    for depth in depths:
        found = [layer for layer in depth if layer.name == wanted]
        if len(found) > 1:
            raise ValueError(
                f"{len(found)} layers of the model {model.name!r} are named "
                f"{wanted!r}. Pass the layer itself in place of its name."
            )
        if found:
            return found[0]
    names = list(dict.fromkeys(layer.name for layer in everything))
    close = difflib.get_close_matches(str(wanted), names, n=5, cutoff=0.4)
    raise ValueError(
        f"The model {model.name!r} has no layer {wanted!r}. Close matches: "
        f"{close or names[:10]}"
    )


def _by_depth(model) -> list[list]:
    seen, depths = {id(model)}, [[model]]
    while depths[-1]:
        children = [child for layer in depths[-1] for child in _children(layer)]
        new = {id(c): c for c in children if id(c) not in seen}
        seen.update(new)
        depths.append(list(new.values()))
    return depths[1:]


def _children(layer) -> list:
    if isinstance(layer, keras.Model):
        return layer.layers
    flat = keras.tree.flatten([_plain(value) for value in vars(layer).values()])
    return [value for value in flat if isinstance(value, keras.layers.Layer)]


def _plain(value):
    return value if isinstance(value, list | tuple | dict) else [value]
