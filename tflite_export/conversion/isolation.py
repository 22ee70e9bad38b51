"""Convert in a child process where the converter might end the process it runs in.

The converter crashes on some graphs (a loop in int8, for one). Graphs of ops that
are known to convert stay in this process, which saves the seconds that a second
TensorFlow takes to start.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import tflite_export
from tflite_export.conversion.converter import Examples, convert
from tflite_export.conversion.saved_model import TracedGraph
from tflite_export.conversion.settings import Settings

_SECONDS = 3600
_ROOT = os.path.dirname(os.path.dirname(tflite_export.__file__))

# Ops of graphs that were converted in every quantisation without harm: those of
# keras.applications and of the topologies in the tests.
_HARMLESS = frozenset(
    """
    Abs AddV2 Any AssignVariableOp AvgPool BatchMatMulV2 BatchToSpaceND BiasAdd Cast
    Ceil ConcatV2 Const Conv2D Conv2DBackpropInput Conv3D DepthwiseConv2dNative
    DisableCopyOnRead Einsum Elu Erf Erfc Exp ExpandDims Expm1
    FakeQuantWithMinMaxVars Floor GatherV2 Greater Identity IdentityN LeakyRelu Less
    LogSoftmax MatMul Max MaxPool Maximum Mean MergeV2Checkpoints Min Minimum Mul
    Neg NoOp NotEqual Pack Pad PartitionedCall Placeholder Pow ReadVariableOp
    RealDiv Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor RestoreV2 Round
    Rsqrt SaveV2 Select SelectV2 Selu Shape ShardedFilename Sigmoid Slice Softmax
    Softplus Softsign SpaceToBatchND Split SplitV Sqrt Square SquaredDifference
    Squeeze StatefulPartitionedCall StaticRegexFullMatch StopGradient StridedSlice
    StringJoin Sub Sum Tanh Tile Transpose Unpack VarHandleOp VarIsInitializedOp
    """.split()  # noqa: SIM905
)


def convert_safely(
    graph: TracedGraph, settings: Settings, examples: Examples, *, floor_ranges: bool
) -> bytes:
    """Like `converter.convert`; the calling process survives whatever happens."""
    if graph.ops <= _HARMLESS:
        return convert(graph, settings, examples, floor_ranges=floor_ranges)
    with tempfile.TemporaryDirectory() as folder:
        task = {
            "graph": {
                **dataclasses.asdict(graph),
                "ops": sorted(graph.ops),
            },
            "settings": dataclasses.asdict(settings),
            "floor_ranges": floor_ranges,
        }
        with open(os.path.join(folder, "task.json"), "w", encoding="utf-8") as file:
            json.dump(task, file)
        if examples is not None:
            np.savez(os.path.join(folder, "examples.npz"), **examples)
        _run_child(folder, graph)
        with open(os.path.join(folder, "model.tflite"), "rb") as file:
            return file.read()


def _run_child(folder: str, graph: TracedGraph) -> None:
    paths = [_ROOT, os.environ.get("PYTHONPATH")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [
        sys.executable,
        "-P",
        "-m",
        "tflite_export.conversion.convert_child",
        folder,
    ]
    try:
        child = subprocess.run(
            command, capture_output=True, env=environment, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"it did not finish within {_SECONDS} seconds") from None
    if child.returncode == 0:
        return
    if child.returncode < 0:
        unusual = ", ".join(sorted(graph.ops - _HARMLESS))
        raise ValueError(
            f"the converter crashed (signal {-child.returncode}). Replace the layers "
            f"that use these ops, or choose another `quantization`: {unusual}"
        )
    lines = child.stderr.decode(errors="replace").strip().splitlines()
    raise ValueError(lines[-1] if lines else "the converter gave no message")


def read_task(folder: str) -> dict:
    """The keyword arguments of `convert` that `convert_safely` left in the folder."""
    with open(os.path.join(folder, "task.json"), encoding="utf-8") as file:
        task = json.load(file)
    examples = None
    data = os.path.join(folder, "examples.npz")
    if os.path.exists(data):
        with np.load(data, allow_pickle=False) as arrays:
            examples = dict(arrays)
    graph = task["graph"]
    graph |= {"inputs": tuple(graph["inputs"]), "ops": frozenset(graph["ops"])}
    return {
        "graph": TracedGraph(**graph),
        "settings": Settings(**task["settings"]),
        "examples": examples,
        "floor_ranges": task["floor_ranges"],
    }
