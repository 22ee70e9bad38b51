"""Keep what a benchmark measured as a page and data, and renew README.md's tables."""

import json
import os
import pathlib
import re
import textwrap
from dataclasses import dataclass

from benchmarks.suite_tables import Printed, read_tables
from keras_compress.pipeline.environment import versions_of
from keras_compress.pipeline.files import write_whole
from tflite_export.benchmark import cpu_name

PACKAGES = (
    *("tensorflow", "keras", "ai-edge-litert", "tensorflow-model-optimization"),
    *("tf_keras", "numpy"),
)
WIDTH = 88
# As Linux names them.
INT8_INSTRUCTIONS = {
    "amx_int8": "AMX",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "asimddp": "dot product",
    "i8mm": "I8MM",
}
_MEASURED = re.compile(
    r"(?P<begin><!-- measured: (?P<name>\w+) -->\n).*?(?=<!-- end -->)", re.DOTALL
)


@dataclass(frozen=True)
class Machine:
    """Where something was measured: processor, its cores, versions by package."""

    cpu: str
    cores: int
    versions: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """This machine, and the packages that are installed."""
        versions = versions_of(PACKAGES)
        return cls(f"{cpu_name()}{_int8_instructions()}", os.cpu_count(), versions)


def _int8_instructions() -> str:
    """What int8 kernels find on this processor; without it they can be slower."""
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text(errors="replace").split()
    except OSError:
        return ""
    found = {flag: name for flag, name in INT8_INSTRUCTIONS.items() if flag in flags}
    return f" with {', '.join(dict.fromkeys(found.values()))}" if found else ""


@dataclass(frozen=True)
class Result:
    """What one run of a benchmark found.

    `date` is that of the run's end, as YYYY-MM-DD; `measured` holds numbers that the
    script wrote besides its tables, None if it writes none.
    """

    name: str
    title: str
    command: str
    date: str
    seconds: float
    machine: Machine
    printed: Printed
    measured: dict | None = None

    def origin(self) -> str:
        """One sentence: what was run, when, for how long and on what."""
        versions = ", ".join(f"{k} {v}" for k, v in self.machine.versions.items())
        return (
            f"`{self.command}`, {self.date}, {duration(self.seconds)} on "
            f"{self.machine.cores} cores of {self.machine.cpu}; {versions}."
        )

    def page(self) -> str:
        """The result in Markdown, tables as they were printed."""
        return f"# {self.title}\n\n{_wrapped(self.origin())}\n\n{self.printed.text}\n"

    def data(self) -> dict:
        """The result for JSON."""
        data = {
            "name": self.name,
            "title": self.title,
            "command": self.command,
            "date": self.date,
            "seconds": round(self.seconds, 1),
            "cpu": self.machine.cpu,
            "cores": self.machine.cores,
            "versions": self.machine.versions,
            "tables": [table.as_dict() for table in self.printed.tables],
        }
        return data if self.measured is None else data | {"measured": self.measured}

    def write(self, folder: pathlib.Path) -> None:
        """Write NAME.md and NAME.json, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = {"md": self.page(), "json": json.dumps(self.data(), indent=1) + "\n"}
        for ending, text in texts.items():
            write_whole(folder / f"{self.name}.{ending}", text)


def duration(seconds: float) -> str:
    """As people say it: "45 s", "7 min 56 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def shown_in(readme: pathlib.Path) -> list[str]:
    """The benchmarks whose tables README.md shows, each between two comments.

    They are `<!-- measured: NAME -->` and `<!-- end -->`, on lines of their own.
    """
    text = readme.read_text(encoding="utf-8")
    return [found["name"] for found in _MEASURED.finditer(text)]


def renew_readme(readme: pathlib.Path, folder: pathlib.Path, name: str) -> None:
    """Put a benchmark's table and where it was measured into README.md.

    Args:
        readme: The file, with the comments of `shown_in`.
        folder: Where NAME.md and NAME.json are.
        name: The benchmark's.

    Raises:
        ValueError: If the comments are not there once each, or NAME.md and NAME.json do
            not hold the same table. README.md is then left alone.
    """
    if (times := shown_in(readme).count(name)) != 1:
        raise ValueError(
            f"Expected `<!-- measured: {name} -->` and after it `<!-- end -->` once, "
            f"each on a line of its own. Received: {readme} with {times} such pairs"
        )

    def renewed(found: re.Match) -> str:
        is_it = found["name"] == name
        return found["begin"] + readme_table(folder, name) if is_it else found[0]

    text = readme.read_text(encoding="utf-8")
    write_whole(readme, _MEASURED.sub(renewed, text))


def readme_table(folder: pathlib.Path, name: str) -> str:
    """What stands between README.md's comments, from a benchmark's results."""
    data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    printed = read_tables((folder / f"{name}.md").read_text(encoding="utf-8"))
    if [table.as_dict() for table in printed.tables] != data["tables"]:
        raise ValueError(
            f"Expected the same tables in {name}.md and {name}.json; run "
            f"`python -m benchmarks --run={name}`. Received: {folder}"
        )
    rows = [line for line in printed.text.splitlines() if line.startswith("|")]
    origin = (
        f"Printed by `{data['command']}` on {data['date']}, in "
        f"{duration(data['seconds'])} on {data['cores']} cores of {data['cpu']}."
    )
    return "\n" + "\n".join([*rows, "", _wrapped(origin)]) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_on_hyphens=False)
