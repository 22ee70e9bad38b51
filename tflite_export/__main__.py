"""Command line: export a `.keras` file, or look into a `.tflite` file.

python -m tflite_export --model=m.keras --output=m.tflite --representative_data=x.npy
python -m tflite_export --inspect=m.tflite
python -m tflite_export --benchmark=m.tflite --threads=2
python -m tflite_export --c_array=m.tflite --header=m.h --source=m.cc
"""

import os
import sys
from pathlib import Path

from absl import app, flags

import tflite_export

_MODEL = flags.DEFINE_string("model", None, "The .keras file to export.")
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.")
_QUANTIZATION = flags.DEFINE_string(
    "quantization", "int8", "int8, int16x8, dynamic, float16 or none."
)
_DATA = flags.DEFINE_string(
    "representative_data",
    None,
    "Examples for int8: a .npy array, or a .npz of one array per input name.",
)
_INPUT_DTYPE = flags.DEFINE_string(
    "input_dtype", "float32", "float32, or int8 or uint8 for int8, int16 for int16x8."
)
_OUTPUT_DTYPE = flags.DEFINE_string("output_dtype", "float32", "Like input_dtype.")
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 1, "The fixed batch of the file; 0 for a file that takes any."
)
_FLOAT_OPS = flags.DEFINE_bool(
    "allow_float_ops", False, "Accept an integer file that is float in places."
)
_LABELS = flags.DEFINE_string(
    "labels", None, "A text file of one class a line, for metadata."
)
_MEAN = flags.DEFINE_float("mean", 0.0, "With --labels: (pixel - mean) / std.")
_STD = flags.DEFINE_float("std", 255.0, "With --labels: (pixel - mean) / std.")

_INSPECT = flags.DEFINE_string("inspect", None, "A .tflite file to list the ops of.")
_BENCHMARK = flags.DEFINE_string("benchmark", None, "A .tflite file to time.")
_THREADS = flags.DEFINE_integer("threads", 1, "CPU threads of --benchmark.")
_KERNELS = flags.DEFINE_string(
    "kernels", "xnnpack", "xnnpack, builtin or reference kernels for --benchmark."
)
_C_ARRAY = flags.DEFINE_string("c_array", None, "A .tflite file to write as C.")
_HEADER = flags.DEFINE_string("header", None, "The header of --c_array, such as m.h.")
_SOURCE = flags.DEFINE_string("source", None, "The source of --c_array, such as m.cc.")


def _read_data(path: str | None):
    import numpy as np

    if path is None:
        return None
    loaded = np.load(path, allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else dict(loaded)


def _metadata() -> tflite_export.ImageMetadata | None:
    if _LABELS.value is None:
        return None
    labels = Path(_LABELS.value).read_text(encoding="utf-8").splitlines()
    return tflite_export.ImageMetadata(labels, mean=_MEAN.value, std=_STD.value)


def _export() -> tflite_export.ExportResult:
    if _MODEL.value is None or _OUTPUT.value is None:
        raise ValueError(
            "`--model` and `--output` must both be given, or one of `--inspect`, "
            f"`--benchmark`, `--c_array`. Received: --model={_MODEL.value} "
            f"--output={_OUTPUT.value}"
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    model = keras.saving.load_model(_MODEL.value, compile=False, safe_mode=True)
    return tflite_export.export(
        model,
        _OUTPUT.value,
        quantization=_QUANTIZATION.value,
        representative_data=_read_data(_DATA.value),
        input_dtype=_INPUT_DTYPE.value,
        output_dtype=_OUTPUT_DTYPE.value,
        batch_size=_BATCH_SIZE.value or None,
        metadata=_metadata(),
        allow_float_ops=_FLOAT_OPS.value,
    )


def _write_c_array() -> str:
    header, source = _HEADER.value, _SOURCE.value
    if header is None or source is None:
        raise ValueError(
            "`--c_array` needs `--header` and `--source`, the files to write. "
            f"Received: --header={header} --source={source}"
        )
    tflite_export.to_c_array(_C_ARRAY.value, header, source)
    return f"{_C_ARRAY.value} written as {header} and {source}"


def _run():
    if _INSPECT.value is not None:
        return tflite_export.inspect(_INSPECT.value)
    if _BENCHMARK.value is not None:
        return tflite_export.benchmark(
            _BENCHMARK.value, threads=_THREADS.value, kernels=_KERNELS.value
        )
    if _C_ARRAY.value is not None:
        return _write_c_array()
    return _export()


def main(argv: list[str]) -> None:
    """Run one of the commands; exit with 1 and one line on an error."""
    try:
        if len(argv) > 1:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}")
        print(_run())
    # Loading a foreign .keras file may raise anything; a user wants one line.
    except Exception as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
