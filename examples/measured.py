"""What the main job measures of each model, as rows of one table."""

import dataclasses
import json

import tflite_files
from stages import write_text
from tabulate import tabulate

import tflite_export


@dataclasses.dataclass(frozen=True)
class Row:
    """What is measured of one model in one number format.

    `seconds` is the time of the training that this model is the result of, without the
    stages before; None where the model was not trained here.
    """

    model: str
    format: str
    file: str
    test_accuracy: float
    parameters: int
    macs: int
    zeros: float
    bytes: int
    gzip_bytes: int
    latency_ms: float
    seconds: float | None = None


def measure(name, paths, data, *, parameters, seconds=None, accuracies=None):
    """One `Row` for each number format of a model.

    Args:
        name: of the model.
        paths: its .tflite files by number format.
        data: `image_data.ImageData`.
        parameters: how many the model has.
        seconds: of its training.
        accuracies: by number format, if they are known; otherwise all test images are
            classified.
    """
    rows = []
    for number_format, path in paths.items():
        profile = tflite_export.inspect(path)
        if accuracies is None:
            accuracy = tflite_files.accuracy(path, data)
        else:
            accuracy = accuracies[number_format]
        rows.append(
            Row(
                model=name,
                format=number_format,
                file=path.name,
                test_accuracy=accuracy,
                parameters=parameters,
                macs=profile.macs,
                zeros=profile.sparsity,
                bytes=profile.bytes,
                gzip_bytes=profile.gzip_bytes,
                latency_ms=tflite_export.benchmark(path, threads=1).median_ms,
                seconds=seconds,
            )
        )
    return rows


def table(rows):
    """The rows for people, in Markdown."""
    cells = [
        [
            row.model,
            row.format,
            f"{row.test_accuracy:.2%}",
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f} M",
            f"{row.zeros:.1%}",
            f"{row.bytes:,}",
            f"{row.gzip_bytes:,}",
            f"{row.latency_ms:.3f} ms",
        ]
        for row in rows
    ]
    headers = ["model", "format", "test accuracy", "parameters", "MACs", "zeros"]
    headers += ["bytes", "gzip bytes", "latency"]
    align = ("left", "left", *["right"] * 7)
    return tabulate(cells, headers, "github", disable_numparse=True, colalign=align)


def write_results(rows, folder, data, settings):
    """Writes results.json: the rows, and what they were measured with."""
    results = {
        "images": data.name,
        "train_images": len(data.x_train),
        "test_images": len(data.x_test),
        **settings,
        "latency": str(tflite_export.benchmark(folder / rows[-1].file, threads=1)),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_text(folder / "results.json", json.dumps(results, indent=2) + "\n")
