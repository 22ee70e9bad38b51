"""README.md's tables are measured ones, and committed results are whole."""

import json
import re

import pytest

from benchmarks.suite import BENCHMARKS
from benchmarks.suite_results import (
    Machine,
    Result,
    duration,
    readme_table,
    renew_readme,
    shown_in,
)
from benchmarks.suite_tables import read_tables

TABLE = "| model | bytes |\n|-------|-------|\n| small |    12 |"
README = "Before\n<!-- measured: main_job -->\nold\n<!-- end -->\nAfter\n"


def result(name="main_job", text=TABLE):
    machine = Machine("A CPU", 2, {"Python": "3.11.2", "keras": "3.15.1"})
    printed, command = read_tables(text), "python x.py --a=1"
    return Result(name, "A job.", command, "2026-01-02", 476.3, machine, printed)


@pytest.fixture
def made(tmp_path):
    """README.md, and beside it the results of a main job."""
    result().write(tmp_path / "results")
    (tmp_path / "README.md").write_text(README)
    return tmp_path / "README.md", tmp_path / "results"


def test_readme_gets_the_table_and_where_it_is_from(made):
    readme, folder = made
    renew_readme(readme, folder, "main_job")
    origin = (
        "Printed by `python x.py --a=1` on 2026-01-02, in 7 min 56 s on 2 cores of "
        "A CPU."
    )
    expected = f"<!-- measured: main_job -->\n\n{TABLE}\n\n{origin}\n<!-- end -->"
    assert readme.read_text() == f"Before\n{expected}\nAfter\n"
    renew_readme(readme, folder, "main_job")
    assert readme.read_text() == f"Before\n{expected}\nAfter\n"


@pytest.mark.parametrize(
    "text",
    ["nothing", README.replace("<!-- end -->", ""), README + README],
    ids=["no comments", "no end", "twice"],
)
def test_a_readme_without_its_comments_is_left_alone(made, text):
    readme, folder = made
    readme.write_text(text)
    with pytest.raises(ValueError, match="Expected `<!-- measured: main_job -->`"):
        renew_readme(readme, folder, "main_job")
    assert readme.read_text() == text


def test_only_the_table_of_the_benchmark_is_renewed(made):
    readme, folder = made
    other = README.replace("main_job", "other")
    readme.write_text(README + other)
    renew_readme(readme, folder, "main_job")
    assert readme.read_text().endswith("After\n" + other)
    assert TABLE in readme.read_text()
    assert shown_in(readme) == ["main_job", "other"]


def test_a_page_and_data_that_differ_are_refused(made):
    readme, folder = made
    page = folder / "main_job.md"
    page.write_text(page.read_text().replace("12 |", "13 |"))
    with pytest.raises(ValueError, match="the same tables"):
        renew_readme(readme, folder, "main_job")
    assert readme.read_text() == README


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (476.3, "7 min 56 s")]
)
def test_durations_are_said_in_minutes_and_seconds(seconds, said):
    assert duration(seconds) == said


def test_the_readme_of_the_project_has_the_tables_of_the_committed_results(root):
    folder = root / "docs" / "results"
    text = (root / "README.md").read_text()
    shown = re.findall(r"<!-- measured: (\w+) -->\n(.*?)<!-- end -->", text, re.DOTALL)
    assert list(dict(shown)) == ["main_job", "vgg16_itself"]
    for name, between in shown:
        assert between == readme_table(folder, name)
        data = json.loads((folder / f"{name}.json").read_text())
        [table] = read_tables(between).tables
        rows = [dict(zip(table.headers, row, strict=True)) for row in table.rows]
        assert rows == data["tables"][0]["rows"]


@pytest.mark.parametrize("name", ["main_job", "vgg16_itself"])
def test_the_table_of_a_job_says_what_was_measured(root, name):
    data = json.loads((root / "docs" / "results" / f"{name}.json").read_text())
    rows, numbers = data["tables"][0]["rows"], data["measured"]["rows"]
    assert '"quick": true' not in json.dumps(data)
    for row, measured in zip(rows, numbers, strict=True):
        assert row["model"] == measured["model"]
        assert row["test accuracy"] == f"{measured['test_accuracy']:.2%}"
        assert row["bytes"] == f"{measured['bytes']:,}"
        assert row["latency"] == f"{measured['latency_ms']:.3f} ms"


def test_committed_results_are_of_benchmarks_and_their_page_says_the_same(root):
    folder = root / "docs" / "results"
    pages = {path.stem for path in folder.glob("*.md")}
    assert pages == {path.stem for path in folder.glob("*.json")}
    assert "main_job" in pages <= set(BENCHMARKS)
    for name in pages:
        data = json.loads((folder / f"{name}.json").read_text())
        page = (folder / f"{name}.md").read_text()
        tables = [table.as_dict() for table in read_tables(page).tables]
        assert tables == data["tables"], name
        assert f"`{data['command']}`, {data['date']}" in page.replace("\n", " "), name
