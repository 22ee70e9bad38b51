"""Load a `.tflite` file and run it once: `echo '["FILE", "AUTO"]' | check_file.py`.

Run in a child process, because a file that the kernels cannot take may end the
process that loads it. Imports LiteRT and NumPy only, so it starts fast; it reads what
to do, [file, resolver] in JSON, when that is done.
"""

import json
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType


def run_once(path: str, resolver: str) -> None:
    """Run the file on zeros, then on random numbers (indices stay zero).

    `resolver` names one of LiteRT's `OpResolverType`, which brings the kernels. Where
    the batch is left open, that is done for batches of 1 and 2.
    """
    interpreter = Interpreter(
        model_path=path, experimental_op_resolver_type=OpResolverType[resolver]
    )
    open_batch = any(map(has_open_batch, interpreter.get_input_details()))
    for batch in (1, 2) if open_batch else (None,):
        if batch is not None:
            resize_batch(interpreter, batch)
        interpreter.allocate_tensors()
        _run(interpreter)


def has_open_batch(detail: dict) -> bool:
    """Whether the first size of the input that the details tell of is left open."""
    return list(detail["shape_signature"][:1]) == [-1]


def resize_batch(interpreter: Interpreter, batch: int) -> None:
    """Set the first size of every input that leaves it open."""
    for detail in interpreter.get_input_details():
        if has_open_batch(detail):
            shape = (batch, *map(int, detail["shape"][1:]))
            interpreter.resize_tensor_input(detail["index"], shape)


def _run(interpreter: Interpreter) -> None:
    random = np.random.default_rng(0)
    for scale in (0, 1):
        for detail in interpreter.get_input_details():
            shape, dtype = detail["shape"], np.dtype(detail["dtype"])
            scaled = detail["quantization"][0] or dtype.itemsize == 1
            values = np.zeros(shape)
            if dtype.kind == "f":
                values = scale * random.normal(size=shape)
            # Whole numbers without a scale may be indices.
            elif dtype.kind in "iu" and scaled:
                info = np.iinfo(dtype)
                values = scale * random.integers(info.min, info.max + 1, shape)
            interpreter.set_tensor(detail["index"], values.astype(dtype))
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            interpreter.get_tensor(detail["index"])


if __name__ == "__main__":
    try:
        run_once(*json.loads(sys.stdin.read()))
    # The last line of stderr is what the parent process reports.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
