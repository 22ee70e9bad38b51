"""Command line: export a `.keras` file, or look into a `.tflite` file.

python -m tflite_export --model=m.keras --output=m.tflite --representative_data=x.npy
python -m tflite_export --inspect=m.tflite
python -m tflite_export --benchmark=m.tflite
"""

import os
import sys

from absl import app, flags

import tflite_export

_MODEL = flags.DEFINE_string("model", None, "The .keras file to export.")
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.")
_QUANTIZATION = flags.DEFINE_string("quantization", "int8", "int8 or none.")
_DATA = flags.DEFINE_string(
    "representative_data",
    None,
    "Examples for int8: a .npy array, or a .npz of one array per input name.",
)
_INPUT_DTYPE = flags.DEFINE_string("input_dtype", "float32", "float32, int8, uint8.")
_OUTPUT_DTYPE = flags.DEFINE_string("output_dtype", "float32", "float32, int8, uint8.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 1, "The fixed batch of the file.")
_INSPECT = flags.DEFINE_string("inspect", None, "A .tflite file to list the ops of.")
_BENCHMARK = flags.DEFINE_string("benchmark", None, "A .tflite file to time.")


def _read_data(path: str | None):
    import numpy as np

    if path is None:
        return None
    loaded = np.load(path, allow_pickle=False)
    return loaded if isinstance(loaded, np.ndarray) else dict(loaded)


def _export() -> tflite_export.ExportResult:
    if _MODEL.value is None or _OUTPUT.value is None:
        raise ValueError(
            "`--model` and `--output` must both be given, or `--inspect` or "
            f"`--benchmark`. Received: --model={_MODEL.value} --output={_OUTPUT.value}"
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
        batch_size=_BATCH_SIZE.value,
    )


def main(argv: list[str]) -> None:
    """Run one of the three commands; exit with 1 and one line on an error."""
    try:
        if len(argv) > 1:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}")
        if _INSPECT.value is not None:
            print(tflite_export.inspect(_INSPECT.value))
        elif _BENCHMARK.value is not None:
            print(tflite_export.benchmark(_BENCHMARK.value))
        else:
            print(_export())
    # Loading a foreign .keras file may raise anything; a user wants one line.
    except Exception as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
