"""Quantise one float `.tflite` file to int8 with ai-edge-quantizer.

    python peer_export_child.py FLOAT.tflite EXAMPLES.npy INT8.tflite

`benchmarks/peer_export.py` runs this in ai-edge-quantizer's own environment. EXAMPLES
are those of the file's only input, which takes one at a time. The recipe is the static
one of the package, with int8 weights and activations. Prints the package's version.
"""

import importlib.metadata
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe


def main(source: str, stored: str, target: str) -> None:
    """Calibrate on the examples and write the file."""
    examples = np.load(stored, allow_pickle=False)
    [(signature, ends)] = Interpreter(source).get_signature_list().items()
    [name] = ends["inputs"]
    work = quantizer.Quantizer(source, recipe.static_wi8_ai8())
    ranges = work.calibrate({signature: [{name: row[None]} for row in examples]})
    work.quantize(ranges).export_model(target)
    print(importlib.metadata.version("ai-edge-quantizer"))


if __name__ == "__main__":
    main(*sys.argv[1:])
