"""What `factorize` did to each layer."""

from dataclasses import dataclass

from keras_compress.tables import tabulate


@dataclass(frozen=True)
class FactorizedLayer:
    """One layer with a kernel.

    Attributes:
        name: The layer's name.
        kind: Its class.
        before: Its parameters.
        after: Those of the two layers that stand for it.
        way: "matrix", "channel" or "spatial"; "" if it is left alone.
        rank: Of the product; 0 if it is left alone.
        full_rank: The largest possible rank of the kernel.
        energy: The share of the sum of squared singular values that is kept.
        reason: Why it is left alone.
    """

    name: str
    kind: str
    before: int
    after: int
    way: str = ""
    rank: int = 0
    full_rank: int = 0
    energy: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class FactorReport:
    """One row per layer with a kernel; `str()` of it is a table.

    Attributes:
        layers: The layers in the order of the model, those left alone too.
        params: Parameters of the whole model before and after.
    """

    layers: tuple[FactorizedLayer, ...]
    params: tuple[int, int]

    def __str__(self) -> str:
        headers = ("layer", "kind", "way", "rank", "energy", "parameters", "after")
        align = (*("left",) * 3, *("right",) * 4)
        rows = [_row(layer) for layer in self.layers]
        table = tabulate(rows, headers, disable_numparse=True, colalign=align)
        before, after = self.params
        share = after / max(before, 1)
        total = f"parameters: {before:,} before, {after:,} after ({share:.1%})"
        return f"{table}\n{total}"


def _row(layer: FactorizedLayer) -> tuple:
    if not layer.rank:
        alone = f"left alone: {layer.reason}"
        return layer.name, layer.kind, alone, "", "", f"{layer.before:,}", ""
    rank = f"{layer.rank} of {layer.full_rank}"
    costs = (f"{layer.before:,}", f"{layer.after:,}")
    return layer.name, layer.kind, layer.way, rank, f"{layer.energy:.4f}", *costs
