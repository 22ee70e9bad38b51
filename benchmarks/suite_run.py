"""Run one benchmark as a process of its own and read what it prints."""

import collections
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
import time

from benchmarks.suite import ROOT, Benchmark
from benchmarks.suite_results import Machine, Result
from benchmarks.suite_tables import read_tables

LAST_LINES = 20


class BenchmarkFailed(RuntimeError):
    """A benchmark ended with an error, or printed no whole table."""


def run(benchmark: Benchmark, quick: bool = False) -> Result:
    """Run a benchmark and show what it prints while it runs.

    Args:
        benchmark: A row of `suite.BENCHMARKS`.
        quick: Whether to run it with the flags of its smoke test.

    Returns:
        What it found. Nothing is written.

    Raises:
        BenchmarkFailed: If it exits with another status than 0, prints no table that
            can be read, or does not write the numbers it should.
    """
    arguments = benchmark.arguments(quick)
    command = f"python {' '.join(arguments)}"
    measured = ROOT / benchmark.measured if benchmark.measured else None
    if measured:
        measured.unlink(missing_ok=True)
    started = time.monotonic()
    status, lines, last = _run_shown([sys.executable, *arguments])
    if status:
        raise BenchmarkFailed(
            f"`{command}` exited with {status}. Its last lines:\n{''.join(last)}"
        )
    try:
        printed = read_tables("".join(lines))
        numbers = json.loads(measured.read_text("utf-8")) if measured else None
    except (OSError, ValueError) as error:
        raise BenchmarkFailed(
            f"`{command}` did not print or write what it should. {error}"
        ) from error
    return Result(
        name=benchmark.name,
        title=benchmark.title,
        command=command,
        date=datetime.date.today().isoformat(),
        seconds=time.monotonic() - started,
        machine=Machine.here(),
        printed=printed,
        measured=numbers,
    )


def _run_shown(command: list[str]) -> tuple[int, list[str], collections.deque[str]]:
    """Exit status, lines of standard output, last lines of both streams."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    # Without it what is printed into a pipe waits in the child's buffer.
    environment["PYTHONUNBUFFERED"] = "1"
    lines, last = [], collections.deque(maxlen=LAST_LINES)

    def show(source, sink, kept) -> None:
        for line in source:
            sink.write(line)
            sink.flush()
            last.append(line)
            kept.append(line)

    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        process_group=0,
    ) as child:
        # Both at once: a full pipe that nobody reads would stop the child.
        ignored = collections.deque(maxlen=0)
        errors = threading.Thread(target=show, args=(child.stderr, sys.stderr, ignored))
        try:
            errors.start()
            show(child.stdout, sys.stdout, lines)
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)  # with the processes that it started
            raise
        errors.join()
    return child.returncode, lines, last
