"""What a `.tflite` file costs."""

import math
import os

import numpy as np

from keras_compress.pipeline.stage import Histogram, Latency, LayerAccount

# Numbers of a type of less than a byte are packed, so only their count is known.
_BITS = {"int2": 2, "int4": 4, "int8": 8, "uint8": 8, "int16": 16, "int32": 32}
_BITS |= {"int64": 64, "float16": 16, "float32": 32, "float64": 64}


def file_account(path) -> dict:
    """Fields of a `Stage`, read off a `.tflite` file and timed with one thread.

    Raises:
        ValueError: If there is no such file, or it cannot be read and run.
    """
    _check_file(path)
    import tflite_export

    found = tflite_export.inspect(path)
    timed = tflite_export.benchmark(path, threads=1)
    constants = _Constants(path)
    rows = constants.kernels(found.ops)
    zeros = constants.zeros()
    return {
        "source": "tflite",
        "params": constants.count(),
        "nonzero": None if zeros is None else constants.count() - zeros,
        "macs": found.macs,
        "bytes": found.bytes,
        "gzip_bytes": found.gzip_bytes,
        "latency": Latency(
            timed.median_ms,
            timed.p90_ms,
            timed.runs,
            timed.threads,
            timed.kernels,
            timed.cpu,
        ),
        "layers": _layers(rows),
        "histogram": _histogram(rows),
    }


def _check_file(path) -> None:
    path = os.fspath(path)
    if os.path.splitext(path)[1] in (".keras", ".h5"):
        raise ValueError(
            "`model` must be a keras.Model or the path of a .tflite file. Received: "
            f"model={path!r}. Load it: add_stage(name, keras.saving.load_model(path))"
        )
    if not os.path.isfile(path):
        raise ValueError(
            "`model` must be a keras.Model or the path of an existing .tflite file. "
            f"Received: model={path!r}, where there is no file. Write it first with "
            "tflite_export.export(model, path)"
        )


class _Constants:
    """The weights in a file: constants that are floats or have a scale."""

    def __init__(self, path) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        self._file = flatbuffer_utils.read_model(os.fspath(path))
        self._by_buffer: dict[int, _Constant] = {}
        for graph in self._file.subgraphs:
            for tensor in graph.tensors or []:
                data = self._file.buffers[tensor.buffer].data
                name = flatbuffer_utils.type_to_name(tensor.type).lower()
                if data is None or not len(data) or name not in _BITS:
                    continue
                constant = _Constant(tensor, name, bytes(data))
                if "float" in name or constant.scale.size:
                    self._by_buffer.setdefault(tensor.buffer, constant)

    def count(self) -> int:
        return sum(constant.size for constant in self._by_buffer.values())

    def zeros(self) -> int | None:
        zeros = [constant.zeros for constant in self._by_buffer.values()]
        return None if None in zeros else sum(zeros)

    def kernels(self, ops) -> list[tuple]:
        """(row of `inspect`, constant) of every kernel, each kernel once."""
        found, seen = [], set()
        rows = iter(ops)
        for graph in self._file.subgraphs:
            made_of = {}
            for operator in graph.operators or []:
                row = next(rows)
                inputs = operator.inputs if operator.inputs is not None else ()
                used = [made_of.get(i, i) for i in map(int, inputs) if i != -1]
                if row.name == "DEQUANTIZE":
                    made_of[int(operator.outputs[0])] = used[0]
                if not row.macs:
                    continue
                for index in used:
                    buffer = graph.tensors[index].buffer
                    constant = self._by_buffer.get(buffer)
                    if constant and len(constant.shape) > 1 and buffer not in seen:
                        seen.add(buffer)
                        found.append((row, constant))
        return found


class _Constant:
    """One constant: `zeros` is None and `values()` too where it is packed."""

    def __init__(self, tensor, dtype: str, data: bytes) -> None:
        self.shape = tuple(map(int, tensor.shape if tensor.shape is not None else ()))
        self.size = math.prod(self.shape)
        self.bits = _BITS[dtype]
        found = tensor.quantization
        scale = None if found is None else found.scale
        zero = None if found is None else found.zeroPoint
        self.scale = np.array([] if scale is None else scale, "float32")
        self._zero = np.array([0] if zero is None or not len(zero) else zero, "int64")
        self._axis = 0 if found is None else int(found.quantizedDimension)
        readable = self.bits >= 8 and tensor.sparsity is None
        self._array = (
            np.frombuffer(data, dtype).reshape(self.shape) if readable else None
        )

    @property
    def zeros(self) -> int | None:
        if self._array is None:
            return None
        return int((self._array == self._along(self._zero)).sum())

    def values(self) -> np.ndarray | None:
        """The numbers that it stands for."""
        if self._array is None or not self.scale.size:
            return self._array
        return (self._array - self._along(self._zero)) * self._along(self.scale)

    def _along(self, numbers) -> np.ndarray:
        """One number for all, or one for each index of the quantised axis."""
        if numbers.size == 1:
            return numbers[0]
        shape = [1] * len(self.shape)
        shape[self._axis] = -1
        return numbers.reshape(shape)


def _layers(rows: list) -> tuple[LayerAccount, ...]:
    """One account for each layer, whose kernels may belong to several ops."""
    grouped: dict[str, list] = {}
    for number, (row, constant) in enumerate(rows):
        name = row.layer or f"{row.name.lower()}_{number}"
        grouped.setdefault(name, []).append((row, constant))
    return tuple(_layer(name, found) for name, found in grouped.items())


def _layer(name: str, found: list) -> LayerAccount:
    zeros = [constant.zeros for _, constant in found]
    return LayerAccount(
        name=name,
        kind=" + ".join(dict.fromkeys(row.name for row, _ in found)),
        weights=sum(constant.size for _, constant in found),
        zeros=None if None in zeros else sum(zeros),
        bits=max(constant.bits for _, constant in found),
        histogram=_histogram(found),
    )


def _histogram(rows: list) -> Histogram | None:
    arrays = [constant.values() for _, constant in rows]
    return Histogram.of([array for array in arrays if array is not None])
