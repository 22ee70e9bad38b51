"""Convert until a file works: as calibrated, then with wider ranges."""

import tempfile

from tflite_export.conversion.checks import check_graph
from tflite_export.conversion.isolation import convert_safely
from tflite_export.conversion.ranges import dead_tensors
from tflite_export.conversion.refusals import layer_names
from tflite_export.conversion.saved_model import TracedGraph, trace
from tflite_export.conversion.settings import Settings
from tflite_export.keras_call import flat_inputs
from tflite_export.metadata import ImageMetadata, with_metadata
from tflite_export.quiet import quiet
from tflite_export.result import dead_text
from tflite_export.runtime import check_ahead, load_failure


def write_working_file(
    model, settings: Settings, examples, metadata: ImageMetadata | None, path: str
) -> tuple[str, ...]:
    """Write a file that LiteRT loads and runs; return the layers that were dead.

    Raises:
        ValueError: If there is no way to such a file; what is at `path` then does
            not work.
    """
    with tempfile.TemporaryDirectory() as folder, check_ahead():
        graph = _traced(model, settings, folder)
        calibrated = settings.integer and not graph.has_ranges
        if calibrated and examples is None:
            raise ValueError(
                "`representative_data` is needed for "
                f"quantization={settings.quantization!r}: it gives the activations "
                "their ranges. Give some hundred typical examples, such as "
                "x_train[:300]. Received: None"
            )
        dead: tuple[str, ...] = ()
        # The ranges of int16 activations cannot be reached.
        widens = calibrated and settings.quantization == "int8"
        for floor_ranges in (False, True) if widens else (False,):
            content = _converted(model, graph, settings, examples, floor_ranges)
            if not floor_ranges:
                dead = tuple(dict.fromkeys(layer_names(model, dead_tensors(content))))
                if dead and widens:
                    continue
            if metadata is not None:
                content = with_metadata(content, metadata)
            with open(path, "wb") as file:
                file.write(content)
            failure = load_failure(path)
            if not failure:
                return dead
    hint = f" {dead_text(dead)} Check the data and the weights." if dead else ""
    raise ValueError(
        f"The file made from model {model.name!r} cannot be loaded and run by LiteRT, "
        f"so it was not written: {failure}.{hint}"
    )


def _traced(model, settings: Settings, folder: str) -> TracedGraph:
    with quiet():
        try:
            graph = trace(model, settings.batch_size, folder)
        # A user's own layer may raise anything.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(
                f"Model {model.name!r} cannot be traced on its inputs "
                f"{[(t.name, t.shape, t.dtype) for t in flat_inputs(model)]}. If it "
                "takes others, wrap it: `x = keras.Input(shape, dtype=...); "
                f"model = keras.Model(x, model(x))`. Received: {reason}"
            ) from error
    check_graph(graph, settings)
    return graph


def _converted(model, graph, settings, examples, floor_ranges: bool) -> bytes:
    try:
        return convert_safely(graph, settings, examples, floor_ranges=floor_ranges)
    except ValueError as error:
        raise ValueError(
            f"Model {model.name!r} cannot be converted: {error}"
        ) from error
