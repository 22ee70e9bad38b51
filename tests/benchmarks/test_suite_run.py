"""Small scripts stand for benchmarks; they run as processes, as benchmarks do."""

import json
import pathlib
import signal
import sys
import time

import pytest
from absl import flags

from benchmarks import __main__ as command
from benchmarks import suite_run
from benchmarks.suite import Benchmark

TABLE = "| net | s |\n|-----|---|\n| a   | 1 |"
GOOD = f'''
"""A small script."""
import sys
print("progress")
print("a warning", file=sys.stderr)
print("""{TABLE}""")
print("flags", *sys.argv[1:])
'''
FAILING = GOOD + 'sys.exit("the reason")\n'
ENDLESS = '''
"""A script that starts another process and never ends."""
import os, pathlib, signal, subprocess, sys, time
other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("pids").write_text(f"{os.getpid()} {other.pid}")
os.kill(os.getppid(), signal.SIGUSR1)
time.sleep(600)
'''
SILENT = '"""A silent script."""\nprint("nothing")\n'


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Make a benchmark of a script's text, under a root of its own."""
    monkeypatch.setattr(suite_run, "ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.suite.ROOT", tmp_path)
    (tmp_path / "benchmarks").mkdir()

    def make(name, text, **options):
        (tmp_path / "benchmarks" / f"{name}.py").write_text(text.strip())
        return Benchmark(name, ("--all",), ("--few",), "a peer", 1, **options)

    return make


@pytest.fixture
def suite(made, monkeypatch, tmp_path):
    """Run `python -m benchmarks` in this process; the benchmarks are given."""

    def main(benchmarks, *arguments):
        table = {benchmark.name: benchmark for benchmark in benchmarks}
        monkeypatch.setattr(command, "BENCHMARKS", table)
        monkeypatch.setattr(command, "RESULTS", tmp_path / "results")
        monkeypatch.setattr(command, "QUICK_RESULTS", tmp_path / "quick")
        saved = flags.FLAGS.__dict__["__flags"]
        before = {n: saved[n].value for n in ("run", "quick", "output_dir")}
        try:
            return command.main(flags.FLAGS(["benchmarks", *arguments]))
        finally:
            for name, value in before.items():
                flags.FLAGS[name].value = value
                flags.FLAGS[name].present = 0

    return main


def test_output_is_shown_and_read(made, capfd):
    result = suite_run.run(made("good", GOOD))
    shown = capfd.readouterr()
    assert shown.out == f"progress\n{TABLE}\nflags --all\n"
    assert "a warning" in shown.err
    assert result.printed.text == f"{TABLE}\nflags --all"
    assert result.command == "python benchmarks/good.py --all"
    assert result.title == "A small script."
    assert result.machine.versions["Python"] == ".".join(map(str, sys.version_info[:3]))


def test_results_are_a_page_and_data(suite, made, tmp_path):
    assert suite([made("good", GOOD)], "--run=good") == 0
    page = (tmp_path / "results" / "good.md").read_text()
    data = json.loads((tmp_path / "results" / "good.json").read_text())
    assert page.startswith("# A small script.\n\n`python benchmarks/good.py --all`, ")
    assert page.endswith(f"{TABLE}\nflags --all\n")
    assert f"cores of {data['cpu']}" in page.replace("\n", " ")
    assert data["tables"] == [{"heading": "", "rows": [{"net": "a", "s": "1"}]}]
    assert data["command"] == "python benchmarks/good.py --all"
    assert data["versions"]["keras"] in page
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == [
        "good.json",
        "good.md",
    ]


def test_quick_runs_all_and_keeps_the_results_of_full_runs(suite, made, tmp_path):
    assert suite([made("good", GOOD), made("other", GOOD)], "--quick") == 0
    assert not (tmp_path / "results").exists()
    for name in ("good", "other"):
        assert "flags --few" in (tmp_path / "quick" / f"{name}.md").read_text()


@pytest.mark.parametrize("text", [FAILING, SILENT])
def test_a_failed_run_leaves_old_files_and_the_others_run(
    suite, made, tmp_path, capfd, text
):
    folder = tmp_path / "results"
    folder.mkdir()
    for ending in ("md", "json"):
        (folder / f"bad.{ending}").write_text("old")
    assert suite([made("bad", text), made("good", GOOD)], "--run=all") == 1
    assert {p.name: p.read_text() == "old" for p in folder.iterdir()} == {
        "bad.md": True,
        "bad.json": True,
        "good.md": False,
        "good.json": False,
    }
    assert "Failed: bad\n" in capfd.readouterr().err


def test_the_last_lines_say_why_it_failed(made):
    with pytest.raises(suite_run.BenchmarkFailed) as raised:
        suite_run.run(made("bad", FAILING))
    assert "exited with 1" in str(raised.value)
    assert "the reason" in str(raised.value)


def test_output_on_both_streams_at_once_does_not_block(made):
    text = GOOD + 'print("e" * 300_000, file=sys.stderr)\nprint("o" * 300_000)\n'
    assert suite_run.run(made("loud", text)).printed.tables[0].rows == (("a", "1"),)


def test_numbers_that_the_script_wrote_are_kept_and_must_be_new(made, tmp_path):
    writes = GOOD + 'open("numbers.json", "w").write(\'{"rows": [1]}\')\n'
    result = suite_run.run(made("good", writes, measured="numbers.json"))
    assert result.data()["measured"] == {"rows": [1]}
    with pytest.raises(suite_run.BenchmarkFailed, match=r"numbers\.json"):
        suite_run.run(made("good", GOOD, measured="numbers.json"))


def test_without_flags_it_lists(suite, made, tmp_path, capfd):
    assert suite([made("good", GOOD)]) == 0
    assert "| good   | A small script. | a peer |" in capfd.readouterr().out
    assert not (tmp_path / "results").exists()


def test_an_unknown_name_is_refused_before_anything_runs(suite, made, tmp_path):
    with pytest.raises(Exception, match=r"good, or all\. Received: goood"):
        suite([made("good", GOOD)], "--run=good,goood")
    assert not (tmp_path / "results").exists()


def is_running(pid):
    """Whether there is such a process, and not only its exit status."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def test_a_suite_that_is_stopped_stops_what_it_runs(made, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(KeyboardInterrupt):
            suite_run.run(made("endless", ENDLESS))
    finally:
        signal.signal(signal.SIGUSR1, before)
    pids = (tmp_path / "pids").read_text().split()
    deadline = time.monotonic() + 30
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
