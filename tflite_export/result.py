"""What `export` tells about the file it wrote."""

from collections import Counter
from dataclasses import dataclass

from tabulate import tabulate

from tflite_export.agreement import Agreement, Agreements


@dataclass(frozen=True)
class ExportResult:
    """What was written: sizes in bytes, how often each op occurs, the float ones.

    `dead_layers` are those whose outputs were zero on all representative data; their
    ranges were widened so that the kernels take the file. `agreement` compares the
    file with the model on the representative data, None if there was none.
    """

    path: str
    bytes: int
    gzip_bytes: int
    ops: Counter[str]
    float_ops: Counter[str]
    dead_layers: tuple[str, ...] = ()
    agreement: Agreement | Agreements | None = None

    def __str__(self) -> str:
        rows = [
            (name, count, self.float_ops[name] or "")
            for name, count in sorted(self.ops.items())
        ]
        lines = [f"{self.path}: {self.bytes:,} bytes ({self.gzip_bytes:,} gzipped)"]
        if self.dead_layers:
            lines.append(dead_text(self.dead_layers))
        if self.agreement is not None:
            lines.append(f"representative data: {self.agreement}")
        return "\n".join([*lines, tabulate(rows, ("op", "count", "in float"))])


def dead_text(layers: tuple[str, ...]) -> str:
    """A sentence that names dead layers."""
    return (
        "The outputs of these layers are zero on all representative data: "
        f"{', '.join(layers)}."
    )
