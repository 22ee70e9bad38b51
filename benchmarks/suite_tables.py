"""Read the tables that benchmarks print with tabulate's "github" format."""

import re
from dataclasses import dataclass

_RULE = re.compile(r"\|(:?-+:?\|)+")


@dataclass(frozen=True)
class Table:
    """Headers and rows of cells as they were printed, and the line above them.

    `heading` is the last line of text before the table if it ends in a colon, else "".
    """

    heading: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_dict(self) -> dict:
        """For JSON: each row as a dict by header."""
        rows = [dict(zip(self.headers, row, strict=True)) for row in self.rows]
        return {"heading": self.heading, "rows": rows}


@dataclass(frozen=True)
class Printed:
    """What a benchmark found.

    `text` is its output from the first table, or from the heading above it, to the end.
    """

    tables: tuple[Table, ...]
    text: str


def read_tables(output: str) -> Printed:
    """Read every table in what a benchmark printed.

    Args:
        output: The standard output of a script.

    Returns:
        The tables, and the text from the first one on.

    Raises:
        ValueError: If there is no table, or one is not whole: a missing line under the
            headers, no rows, a row with more or fewer cells than there are headers, or
            two headers alike.

    Example:

    ```python
    text = tabulate([("small", 1.5)], ("net", "seconds"), tablefmt="github")
    [table] = read_tables(text).tables
    assert table.as_dict()["rows"] == [{"net": "small", "seconds": "1.5"}]
    ```
    """
    lines = [line.rstrip() for line in output.splitlines()]
    tables, start, index = [], None, 0
    while index < len(lines):
        if not lines[index].startswith("|"):
            index += 1
            continue
        end = index
        while end < len(lines) and lines[end].startswith("|"):
            end += 1
        above = _line_above(lines, index)
        heading = "" if above is None else lines[above]
        tables.append(_table(heading, lines[index:end]))
        if start is None:
            start = index if above is None else above
        index = end
    if not tables:
        raise ValueError(
            'Expected a table in tabulate\'s "github" format. Received: '
            f"{len(lines)} lines without one, the last of them {lines[-3:]}"
        )
    return Printed(tuple(tables), "\n".join(lines[start:]).strip())


def _line_above(lines: list[str], index: int) -> int | None:
    """Where the heading of the table that begins at `index` is."""
    above = index - 1
    while above >= 0 and not lines[above]:
        above -= 1
    return above if above >= 0 and lines[above].endswith(":") else None


def _table(heading: str, lines: list[str]) -> Table:
    headers, *rows = [_cells(line) for line in lines]
    if len(lines) < 3 or not _RULE.fullmatch(lines[1]):
        raise ValueError(
            "A table must have headers, a line of dashes and rows. Received: "
            f"{lines[:3]}"
        )
    for line, cells in zip(lines[1:], rows, strict=True):
        if len(cells) != len(headers):
            raise ValueError(
                f"A row must have a cell for each of the {len(headers)} headers, none "
                f'with a "|" in it. Received: {line!r}, {len(cells)} cells'
            )
    if len(set(headers)) < len(headers):
        raise ValueError(
            f"The headers of a table must differ. Received: {list(headers)}"
        )
    return Table(heading, headers, tuple(rows[1:]))


def _cells(line: str) -> tuple[str, ...]:
    if len(line) < 2 or not line.endswith("|"):
        raise ValueError(f'A line of a table must end with "|". Received: {line!r}')
    return tuple(cell.strip() for cell in line[1:-1].split("|"))
