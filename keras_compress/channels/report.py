"""What `prune_channels` did to each group of channels."""

from dataclasses import dataclass

from tabulate import tabulate


@dataclass(frozen=True)
class PrunedGroup:
    """A group's name, its channels before and after, and why none was removed."""

    name: str
    before: int
    after: int
    reason: str = ""


@dataclass(frozen=True)
class ChannelReport:
    """One row per group; `str()` of it is a table.

    Attributes:
        groups: The groups, frozen ones too.
        macs: Multiply-accumulates per example before and after; None if the model's
            input shape is open.
        params: Parameters before and after.
    """

    groups: tuple[PrunedGroup, ...]
    macs: tuple[int, int] | None
    params: tuple[int, int]

    def __str__(self) -> str:
        rows = [(g.name, g.before, g.after, g.reason) for g in self.groups]
        table = tabulate(rows, ("group", "channels", "kept", "why all"))
        lines = [table, _line("parameters", self.params)]
        if self.macs is not None:
            lines.insert(1, _line("MACs", self.macs))
        return "\n".join(lines)


def _line(name: str, pair: tuple[int, int]) -> str:
    before, after = pair
    return f"{name}: {before:,} before, {after:,} after ({after / max(before, 1):.1%})"
