"""List and run the benchmarks, from the project's root.

    python -m benchmarks                     lists them
    python -m benchmarks --run=qat_cost      runs one; several with commas, or "all"
    python -m benchmarks --quick             runs all on small data, a smoke test

A run writes NAME.md and NAME.json into docs/results, a quick one into runs/results,
where its numbers, which mean little, replace no others. A benchmark that fails leaves
the files of its last run as they are; the others still run. The exit status is then 1.
After a full run README.md has the new numbers of the tables that it shows.
"""

import pathlib
import signal
import sys

from absl import app, flags
from tabulate import tabulate

from benchmarks.suite import BENCHMARKS, ROOT, Benchmark
from benchmarks.suite_results import renew_readme, shown_in
from benchmarks.suite_run import BenchmarkFailed, run

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
QUICK_RESULTS = ROOT / "runs" / "results"

_RUN = flags.DEFINE_list("run", [], 'Names of the benchmarks to run, or "all".')
_QUICK = flags.DEFINE_bool("quick", False, "Small data: do the benchmarks run at all?")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", None, "Where results go; docs/results, or runs/results with --quick."
)


def listing() -> str:
    """The table of all benchmarks."""
    rows = [
        (benchmark.name, benchmark.title, benchmark.peer, benchmark.minutes)
        for benchmark in BENCHMARKS.values()
    ]
    headers = ("name", "what", "peer", "minutes, about")
    return tabulate(rows, headers, tablefmt="github")


def chosen() -> list[Benchmark]:
    """The benchmarks that the flags name."""
    unknown = sorted(set(_RUN.value) - {*BENCHMARKS, "all"})
    if unknown:
        raise app.UsageError(
            f"--run takes names of benchmarks: {', '.join(BENCHMARKS)}, or all. "
            f"Received: {', '.join(unknown)}"
        )
    if "all" in _RUN.value or (_QUICK.value and not _RUN.value):
        return list(BENCHMARKS.values())
    return [BENCHMARKS[name] for name in _RUN.value]


def main(argv: list[str]) -> int:
    """List the benchmarks, or run some; 1 if any failed."""
    if len(argv) > 1:
        raise app.UsageError(f"Expected flags only. Received: {argv[1:]}")
    benchmarks = chosen()
    if not benchmarks:
        print(listing())
        return 0
    # As an exception, which ends the benchmark that is running, too.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    default = QUICK_RESULTS if _QUICK.value else RESULTS
    folder = pathlib.Path(_OUTPUT_DIR.value or default)
    failed = []
    for benchmark in benchmarks:
        print(f"\n{benchmark.name}: {benchmark.title}", flush=True)
        try:
            run(benchmark, _QUICK.value).write(folder)
        except BenchmarkFailed as failure:
            print(f"{benchmark.name} failed: {failure}", file=sys.stderr, flush=True)
            failed.append(benchmark.name)
            continue
        print(f"Written: {folder / benchmark.name}.md and .json", flush=True)
        is_shown = benchmark.name in shown_in(README)
        if is_shown and folder == RESULTS and not _QUICK.value:
            renew_readme(README, RESULTS, benchmark.name)
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    app.run(main)
