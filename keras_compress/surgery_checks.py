"""What every function that makes a smaller model refuses."""

import keras

from keras_compress.graph import Graph


def exactly_one_share(**shares: float | None) -> tuple[str, float]:
    """The name and value of the one share to keep that is given.

    Raises:
        ValueError: If none or several are, or it is not in (0, 1].
    """
    given = {name: share for name, share in shares.items() if share is not None}
    if len(given) != 1:
        *names, last = (f"`{name}`" for name in shares)
        raise ValueError(
            f"Give exactly one of {', '.join(names)} and {last}, the share to keep, "
            f"for example {next(iter(shares))}=0.5. Received: "
            f"{given or 'none of them'}"
        )
    [(name, share)] = given.items()
    if not (isinstance(share, int | float) and 0 < share <= 1):
        raise ValueError(
            f"`{name}` must be in (0, 1], the share to keep. Received: {name}={share!r}"
        )
    return name, float(share)


def check_not_quantized(model: keras.Model, graph: Graph, order: str) -> None:
    """Raise if the model is quantization-aware.

    Args:
        model: The model.
        graph: Its graph.
        order: What comes before quantization-aware training, for the message.
    """
    for step in graph.steps:
        if type(step.operation).__module__.startswith("keras_compress.quantization"):
            raise ValueError(
                f"{order}, then call `kc.quantize_aware`; or take `kc.strip(model)`. "
                f"Received: model {model.name!r} with {step.kind} "
                f"{step.operation.name!r}"
            )
