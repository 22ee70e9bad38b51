"""Latency of a `.tflite` file on this machine's CPU."""

import json
import os
import platform
import tempfile
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from tflite_export.flatbuffer import bad_file, read_model
from tflite_export.inspect import inspect
from tflite_export.runtime import KERNELS, load, run_child
from tflite_export.single_ops import single_op_files
from tflite_export.time_files import fill_with_zeros, run_times

_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "time_files.py")


@dataclass(frozen=True)
class OpTime:
    """Milliseconds of one op run alone; None where it cannot run alone."""

    name: str
    output_shape: tuple[int, ...]
    macs: int
    layer: str
    median_ms: float | None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of a file, which is of its whole batch.

    `ops` holds the time of each op where `benchmark` was asked for it, else None.
    """

    median_ms: float
    p90_ms: float
    runs: int
    threads: int
    kernels: str
    cpu: str
    ops: tuple[OpTime, ...] | None = None

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        result = (
            f"median {self.median_ms:.3f} ms, 90th percentile {self.p90_ms:.3f} ms "
            f"({self.runs} runs, {self.kernels} kernels, {self.threads} "
            f"thread{plural}, {self.cpu})"
        )
        if self.ops is None:
            return result
        total = sum(row.median_ms or 0 for row in self.ops)
        rows = [
            (
                row.name,
                "x".join(map(str, row.output_shape)) or "scalar",
                f"{row.macs:,}" if row.macs else "",
                "" if row.median_ms is None else f"{row.median_ms:.4f}",
                "" if row.median_ms is None else f"{row.median_ms / total:.1%}",
                row.layer,
            )
            for row in self.ops
        ]
        table = tabulate(
            rows,
            ("op", "output shape", "MACs", "ms alone", "share", "layer"),
            colalign=("left", "left", "right", "right", "right", "left"),
            disable_numparse=True,
        )
        return f"{table}\nops run alone: {total:.4f} ms in sum\n{result}"


def benchmark(
    path,
    *,
    threads: int = 1,
    runs: int = 50,
    warmup: int = 5,
    kernels: str = "xnnpack",
    per_op: bool = False,
) -> Latency:
    """Time single runs of a `.tflite` file on this machine's CPU.

    LiteRT's Python package reports no time per op. So `per_op` times every op as a
    file of its own, in a child process, on zeros: a guide to where the time goes. The
    sum is not that of the whole file, in which ops find their inputs in other states
    of the cache and XNNPACK joins some of them.

    Args:
        path: File name of a `.tflite` file. Its inputs are filled with zeros; a batch
            that is left open is 1.
        threads: CPU threads, at least 1.
        runs: How many runs to time, at least 1.
        warmup: Runs before that which are not timed, at least 0.
        kernels: "xnnpack" for LiteRT's default, "builtin" for its own optimised
            kernels without that delegate, "reference" for the plain ones, whose speed
            says nothing about a device.
        per_op: Whether to time each op too, with the same kernels, threads and runs.

    Returns:
        A `Latency` with `median_ms` and `p90_ms`, the milliseconds of one run, and the
        `cpu`; `str()` of it says all that, with a table of the `ops` if they were asked
        for.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run or an argument is out of range.

    Example:

    ```python
    latency = tflite_export.benchmark("m.tflite", threads=2)
    print(latency.median_ms)
    ```
    """
    _check_numbers(threads, runs, warmup)
    interpreter = load(path, threads=threads, kernels=kernels).interpreter
    fill_with_zeros(interpreter)
    median, p90 = np.percentile(run_times(interpreter, runs, warmup), [50, 90])
    ops = _op_times(path, kernels, threads, runs, warmup) if per_op else None
    return Latency(float(median), float(p90), runs, threads, kernels, cpu_name(), ops)


def _check_numbers(threads, runs, warmup) -> None:
    for name, value, low in (
        ("threads", threads, 1),
        ("runs", runs, 1),
        ("warmup", warmup, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(
                f"`{name}` must be an int of at least {low}. Received: {name}={value!r}"
            )


def _op_times(path, kernels: str, *numbers: int) -> tuple[OpTime, ...]:
    with tempfile.TemporaryDirectory() as folder:
        for index, content in enumerate(single_op_files(read_model(path))):
            if content is not None:
                with open(os.path.join(folder, f"{index}.tflite"), "xb") as file:
                    file.write(content)
        resolver = KERNELS[kernels].name
        printed, failure = run_child(_SCRIPT, folder, resolver, *map(str, numbers))
    if failure:
        raise bad_file(path, f"its ops cannot be run one by one ({failure})")
    times = json.loads(printed)
    rows = []
    for index, row in enumerate(inspect(path).ops[: _main_ops(path)]):
        found = times.get(f"{index}.tflite")
        median = None if found is None else float(np.median(found))
        rows.append(OpTime(row.name, row.output_shape, row.macs, row.layer, median))
    return tuple(rows)


def _main_ops(path) -> int:
    return len(read_model(path).subgraphs[0].operators or [])


def cpu_name() -> str:
    """The processor, as the system calls it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
