"""Run one `.tflite` file on stored inputs and store its outputs.

    python arm_child.py FILE INPUTS.npz OUTPUTS.npz KERNELS

`benchmarks/arm_agreement.py` runs this under each processor and set of kernels.
Imports LiteRT and NumPy only, because the emulated Python has nothing else. INPUTS
and OUTPUTS hold one array for each input and output of the file, named "0", "1", ...
in the order of the graph, with one row per run.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

# AUTO is what an app gets: XNNPACK, and LiteRT's optimised kernels beside it.
_RESOLVERS = {"reference": OpResolverType.BUILTIN_REF, "xnnpack": OpResolverType.AUTO}


def run(path: str, inputs: list[np.ndarray], kernels: str) -> list[np.ndarray]:
    """The outputs of the file, each of shape (runs, *shape of the output)."""
    interpreter = Interpreter(
        model_path=path, experimental_op_resolver_type=_RESOLVERS[kernels]
    )
    interpreter.allocate_tensors()
    takes, gives = interpreter.get_input_details(), interpreter.get_output_details()
    rows: list[list[np.ndarray]] = [[] for _ in gives]
    for values in zip(*inputs, strict=True):
        for detail, value in zip(takes, values, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        for row, detail in zip(rows, gives, strict=True):
            row.append(interpreter.get_tensor(detail["index"]))
    return [np.stack(row) for row in rows]


if __name__ == "__main__":
    file, stored, results, kernel_set = sys.argv[1:]
    with np.load(stored, allow_pickle=False) as arrays:
        given = [arrays[str(position)] for position in range(len(arrays.files))]
    outputs = run(file, given, kernel_set)
    np.savez(results, **{str(i): values for i, values in enumerate(outputs)})
