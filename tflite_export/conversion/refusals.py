"""What `export` refuses after a conversion, in the words of the Keras model."""

from collections import Counter
from collections.abc import Iterable

from tflite_export.inspect import TFLiteProfile
from tflite_export.keras_call import layers_within

# What the converter calls the tensors that a graph returns.
_GRAPH_OUTPUT = "StatefulPartitionedCall"


def refuse_custom_ops(profile: TFLiteProfile) -> None:
    """ValueError for ops that a plain LiteRT runtime does not have."""
    custom = sorted(
        n for n in profile.op_counts if n.startswith(("CUSTOM", "STABLEHLO"))
    )
    if custom:
        raise ValueError(
            "The model must convert to LiteRT's built-in ops; replace the layers "
            f"behind these. Received: {', '.join(custom)}"
        )


def refuse_float_ops(model, quantization: str, profile: TFLiteProfile) -> None:
    """ValueError for ops left in float, named with the layers they come from."""
    edges = ("QUANTIZE", "DEQUANTIZE")
    inner = [row for row in profile.float_ops if row.name not in edges]
    found = inner or list(profile.float_ops)
    if not found:
        return
    layers = layer_names(model, (row.tensor for row in found))
    listed = Counter(
        f"{row.name} ({layer})" for row, layer in zip(found, layers, strict=True)
    )
    ops = ", ".join(
        name if count == 1 else f"{count} x {name}" for name, count in listed.items()
    )
    raise ValueError(
        f"The {quantization} file would compute in float in places, by op (layer). "
        f"Replace those layers or pass allow_float_ops=True. Received: {ops}"
    )


def layer_names(model, tensors: Iterable[str]) -> list[str]:
    """For each tensor of a file the layer it comes from, else the tensor's name."""
    names = {layer.name for layer in layers_within(model)}
    last = getattr(model, "output_names", None) or ()
    return [
        last[0]
        if len(last) == 1 and tensor.startswith(_GRAPH_OUTPUT)
        else _layer_of(tensor, names)
        for tensor in tensors
    ]


def _layer_of(tensor: str, names: set[str]) -> str:
    """The layer whose name scope the tensor carries, else the tensor's name."""
    for scope in reversed(tensor.split(";")[0].split("/")):
        # Scopes of a second trace end in _1, so that spelling is tried first.
        stem, _, number = scope.rpartition("_")
        if number.isdigit() and stem in names:
            return stem
        if scope in names:
            return scope
    return tensor
