import pytest
from tabulate import tabulate

from benchmarks.suite_tables import read_tables


def github(rows, headers, **options):
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True, **options)


def test_a_table_gives_its_cells_as_they_were_printed():
    text = github([("small", "1,234", "93.10%"), ("", "", "-")], ("net", "bytes", "%"))
    [table] = read_tables(text).tables
    assert table.headers == ("net", "bytes", "%")
    assert table.rows == (("small", "1,234", "93.10%"), ("", "", "-"))
    assert table.as_dict()["rows"][0] == {
        "net": "small",
        "bytes": "1,234",
        "%": "93.10%",
    }


def test_columns_may_be_aligned_in_any_way():
    rows, headers = [("a", "1"), ("bb", "22")], ("left", "right")
    text = github(rows, headers, colalign=("left", "right"))
    colons = "| left | right |\n|:-----|------:|\n| a | 1 |\n| bb | 22 |"
    for printed in (text, colons):
        assert read_tables(printed).tables[0].rows == tuple(rows)


def test_several_tables_keep_their_headings_and_the_text_between_them():
    first, second = github([("1",)], ("a",)), github([("2",)], ("b",))
    output = f"seed 0: 91.2\nTimes:\n\n{first}\n\n3 of 4 met\n\n{second}\nDone."
    printed = read_tables(output)
    assert [table.heading for table in printed.tables] == ["Times:", ""]
    assert [table.rows for table in printed.tables] == [(("1",),), (("2",),)]
    assert printed.text == output.removeprefix("seed 0: 91.2\n")


def test_progress_before_the_first_table_is_left_out():
    table = github([("1",)], ("a",))
    assert read_tables(f"Training\n0.5 done\n\n{table}\n").text == table


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no table at all\n", "Expected a table .* Received: 1 lines"),
        ("", "Expected a table .* Received: 0 lines"),
        ("what    measured\n------  ----------\nratio   1.2", "Expected a table"),
        ("| a |\n|---|", "must have headers, a line of dashes and rows"),
        ("| a |\n| 1 |\n| 2 |", "must have headers, a line of dashes and rows"),
        ("| a | b |\n|---|---|\n| 1 |", "each of the 2 headers.*1 cells"),
        ("| max |x| | b |\n|---|---|\n| 1 | 2 |", "each of the 4 headers.*2 cells"),
        ("| a | b |\n|---|---|\n| x|y | 2 |", "each of the 2 headers.*3 cells"),
        ("| a | b |\n|---|---|\n| 1 | 2", 'must end with "|".*1 | 2'),
        ("| a | a |\n|---|---|\n| 1 | 2 |", "headers of a table must differ"),
    ],
)
def test_what_is_not_a_whole_table_is_refused(output, message):
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        read_tables(output)
