"""Latency of a `.tflite` file on this machine's CPU."""

import platform
import time
from dataclasses import dataclass

import numpy as np

from tflite_export.runtime import load


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of a file, which is of its whole batch."""

    median_ms: float
    p90_ms: float
    runs: int
    threads: int
    cpu: str

    def __str__(self) -> str:
        plural = "" if self.threads == 1 else "s"
        return (
            f"median {self.median_ms:.3f} ms, 90th percentile {self.p90_ms:.3f} ms "
            f"({self.runs} runs, {self.threads} thread{plural}, {self.cpu})"
        )


def benchmark(path, *, threads: int = 1, runs: int = 50, warmup: int = 5) -> Latency:
    """Time single runs of a `.tflite` file with LiteRT's default (XNNPACK) kernels.

    Args:
        path: File name of a `.tflite` file. Its inputs are filled with zeros.
        threads: CPU threads, at least 1.
        runs: How many runs to time, at least 1.
        warmup: Runs before that which are not timed, at least 0.

    Returns:
        A `Latency` with `median_ms` and `p90_ms`, the milliseconds of one run.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If the file cannot be run or a number is out of range.

    Example:

    ```python
    latency = tflite_export.benchmark("m.tflite", threads=2)
    print(latency.median_ms)
    ```
    """
    for name, value, low in (
        ("threads", threads, 1),
        ("runs", runs, 1),
        ("warmup", warmup, 0),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(
                f"`{name}` must be an int of at least {low}. Received: {name}={value!r}"
            )
    loaded = load(path, threads=threads)
    for detail in loaded.inputs.values():
        zeros = np.zeros(detail["shape"], detail["dtype"])
        loaded.interpreter.set_tensor(detail["index"], zeros)
    for _ in range(warmup):
        loaded.interpreter.invoke()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        loaded.interpreter.invoke()
        times.append((time.perf_counter() - start) * 1000)
    median, p90 = np.percentile(times, [50, 90])
    return Latency(float(median), float(p90), runs, threads, _cpu_name())


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
