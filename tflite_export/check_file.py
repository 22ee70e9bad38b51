"""Load a `.tflite` file and run it once: `python check_file.py FILE`.

Run in a child process, because a file that the kernels cannot take may end the
process that loads it. Imports LiteRT and NumPy only, so it starts fast.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def run_once(path: str) -> None:
    """Run the file on zeros, then on random numbers (indices stay zero)."""
    interpreter = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    random = np.random.default_rng(0)
    for scale in (0, 1):
        for detail in interpreter.get_input_details():
            shape, dtype = detail["shape"], np.dtype(detail["dtype"])
            values = np.zeros(shape)
            if dtype.kind == "f":
                values = scale * random.normal(size=shape)
            elif dtype.itemsize == 1 and dtype.kind in "iu":
                info = np.iinfo(dtype)
                values = scale * random.integers(info.min, info.max + 1, shape)
            interpreter.set_tensor(detail["index"], values.astype(dtype))
        interpreter.invoke()
        for detail in interpreter.get_output_details():
            interpreter.get_tensor(detail["index"])


if __name__ == "__main__":
    try:
        run_once(sys.argv[1])
    # The last line of stderr is what the parent process reports.
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
