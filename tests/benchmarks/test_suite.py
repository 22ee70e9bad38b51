"""The table of benchmarks names every script, and flags that the scripts have."""

import re

import pytest

from benchmarks.suite import BENCHMARKS, HELPERS

DEFINED = re.compile(r'DEFINE_\w+\(\s*"(\w+)"')
IMPORTED = re.compile(r"^(?:from|import) (\w+)", re.MULTILINE)


def texts_of(path):
    """The script's text and those of the modules beside it that it imports."""
    text = path.read_text()
    found = [text]
    for name in IMPORTED.findall(text):
        for folder in (path.parent, path.parents[1] / "examples"):
            if (module := folder / f"{name}.py").exists():
                found += texts_of(module)
    return found


def test_every_script_with_a_main_is_in_the_table_or_a_helper(root):
    scripts = {
        path.stem
        for path in (root / "benchmarks").glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    in_folder = {b.path.stem for b in BENCHMARKS.values() if b.folder == "benchmarks"}
    assert not in_folder & set(HELPERS)
    assert scripts - {"__main__"} == in_folder | set(HELPERS)


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=lambda b: b.name)
def test_a_row_fits_its_script(benchmark):
    assert benchmark.title.endswith((".", "?"))
    assert benchmark.minutes > 0
    defined = {
        name for text in texts_of(benchmark.path) for name in DEFINED.findall(text)
    }
    for flag in (*benchmark.flags, *benchmark.quick):
        name, equals, _ = flag.removeprefix("--").partition("=")
        assert {name, name if equals else name.removeprefix("no")} & defined, flag


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_script_prints_tables_that_the_suite_can_read(name):
    texts = texts_of(BENCHMARKS[name].path)
    assert any(re.search(r'tabulate\([^#]*"github"', text) for text in texts)
