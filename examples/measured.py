"""What the main job measures of each model, as rows of one table."""

import dataclasses
import json

import tflite_files
from tabulate import tabulate

import keras_compress as kc
import tflite_export
from keras_compress.pipeline.files import write_whole


@dataclasses.dataclass(frozen=True)
class Row:
    """What is measured of one model in one number format.

    `seconds` and `samples` are the time and the images of the training that this model
    is the result of, without the stages before; None where it was not trained here.
    `latency_ms` is None until all files are timed, one after the other, at the end.
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
    seconds: float | None = None
    samples: int | None = None
    latency_ms: float | None = None


def measure(name, paths, data, *, parameters, training=None, accuracies=None):
    """One `Row` for each number format of a model.

    Args:
        name: of the model.
        paths: its .tflite files by number format.
        data: `image_data.ImageData`.
        parameters: how many the model has.
        training: its `seconds` and `samples`.
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
                **(training or {}),
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


def report_of(rows, folder, title, commands):
    """A `kc.CompressionReport` of the rows' files, and the rows with its latencies."""
    report = kc.CompressionReport(title, commands, metric="accuracy")
    timed = []
    for row in rows:
        known = {"seconds": row.seconds, "samples": row.samples}
        stage = report.add_stage(
            f"{row.model}, {row.format}",
            folder / row.file,
            {"accuracy": row.test_accuracy},
            training={key: value for key, value in known.items() if value is not None},
        )
        timed.append(dataclasses.replace(row, latency_ms=stage.latency_ms))
    return report, timed


def write_results(rows, folder, data, settings, latency):
    """Writes results.json: the rows, and what they were measured with."""
    results = {
        "images": data.name,
        "train_images": len(data.x_train),
        "test_images": len(data.x_test),
        **settings,
        "latency": latency,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_whole(folder / "results.json", json.dumps(results, indent=2) + "\n")
