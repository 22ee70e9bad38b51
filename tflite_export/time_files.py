"""Time `.tflite` files: `python time_files.py FOLDER RESOLVER THREADS RUNS WARMUP`.

Run in a child process, because an op that is torn from its graph may end the process
that runs it. Prints the milliseconds of every run of each file in the folder, as JSON
by file name, null for a file that does not run. Imports LiteRT and NumPy only.
"""

import json
import os
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def fill_with_zeros(interpreter: Interpreter) -> None:
    """Set every input to zeros."""
    for detail in interpreter.get_input_details():
        zeros = np.zeros(detail["shape"], detail["dtype"])
        interpreter.set_tensor(detail["index"], zeros)


def run_times(interpreter: Interpreter, runs: int, warmup: int) -> list[float]:
    """Milliseconds of each of `runs` runs, after `warmup` that are not timed."""
    for _ in range(warmup):
        interpreter.invoke()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        interpreter.invoke()
        times.append((time.perf_counter() - start) * 1000)
    return times


def file_times(path: str, resolver: str, threads: int, runs: int, warmup: int):
    """The `run_times` of one file, None if it does not run.

    `resolver` names one of LiteRT's `OpResolverType`, which brings the kernels.
    """
    try:
        interpreter = Interpreter(
            model_path=path,
            num_threads=threads,
            experimental_op_resolver_type=OpResolverType[resolver],
        )
        interpreter.allocate_tensors()
        fill_with_zeros(interpreter)
        return run_times(interpreter, runs, warmup)
    except (RuntimeError, ValueError):
        return None


if __name__ == "__main__":
    folder, resolver, *numbers = sys.argv[1:]
    threads, runs, warmup = map(int, numbers)
    print(
        json.dumps(
            {
                name: file_times(
                    os.path.join(folder, name), resolver, threads, runs, warmup
                )
                for name in sorted(os.listdir(folder))
            }
        )
    )
