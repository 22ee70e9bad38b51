"""What `prune_channels` did to each group of channels."""

from dataclasses import dataclass

from keras_compress.tables import tabulate


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
        macs: Multiply-accumulates per example before and after.
        params: Parameters before and after.
    """

    groups: tuple[PrunedGroup, ...]
    macs: tuple[int, int]
    params: tuple[int, int]

    def __str__(self) -> str:
        rows = [(g.name, g.before, g.after, g.reason) for g in self.groups]
        table = tabulate(rows, ("group", "channels", "kept", "why all"))
        costs = (_line("MACs", self.macs), _line("parameters", self.params))
        return "\n".join((table, *costs))


def _line(name: str, pair: tuple[int, int]) -> str:
    before, after = pair
    return f"{name}: {before:,} before, {after:,} after ({after / max(before, 1):.1%})"
