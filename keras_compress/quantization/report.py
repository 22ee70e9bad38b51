"""What `quantize_aware` did to each layer, and what it left in float and why."""

from dataclasses import dataclass

from keras_compress.tables import tabulate


@dataclass(frozen=True)
class QuantizedLayer:
    """One layer or op: its name, class, and how it is computed.

    `reason` says why a layer is left in float, and is empty for all others.
    """

    name: str
    kind: str
    treatment: str
    reason: str = ""


@dataclass(frozen=True)
class QuantizationReport:
    """One row per layer and op; `str()` of it is a table."""

    layers: tuple[QuantizedLayer, ...]

    @property
    def float_layers(self) -> tuple[QuantizedLayer, ...]:
        """What is computed in float."""
        return tuple(row for row in self.layers if row.treatment == "float")

    def __str__(self) -> str:
        rows = [(r.name, r.kind, r.treatment, r.reason) for r in self.layers]
        table = tabulate(rows, ("layer", "kind", "treatment", "reason"))
        return f"{table}\n{len(rows)} layers, {len(self.float_layers)} of them in float"
