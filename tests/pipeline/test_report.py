"""A report's numbers are those of `profile` and `inspect`, and survive JSON."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_compress as kc
import tflite_export


def build():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3, name="dense"),
        ]
    )
    kernel = np.array(model.get_layer("conv").kernel)
    kernel[..., 0] = 0
    model.get_layer("conv").kernel.assign(kernel)
    model.get_layer("conv").bias.assign(np.ones(4))
    model.get_layer("dense").bias.assign(np.ones(3))
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model and files of it by quantization."""
    keras.utils.set_random_seed(0)
    model, folder = build(), tmp_path_factory.mktemp("files")
    x = np.random.default_rng(0).random((40, 8, 8, 2), "float32")
    files = {kind: folder / f"{kind}.tflite" for kind in ("none", "float16", "int8")}
    for kind, path in files.items():
        data = {"representative_data": x} if kind == "int8" else {}
        tflite_export.export(model, path, quantization=kind, **data)
    return model, files


def report_of(made):
    model, files = made
    report = kc.CompressionReport("Small", ["python a.py", "python b.py --c=1"])
    training = {"seconds": 1.5, "samples": np.int64(400)}
    report.add_stage("model", model, {"accuracy": np.float32(0.75)}, training=training)
    report.add_stage("float", files["none"], {"accuracy": 0.7, "loss": 0.5})
    report.add_stage("int8", str(files["int8"]), {"accuracy": 0.5})
    return report


def test_the_account_of_a_model_is_its_profile(made):
    model, _ = made
    found, costs = kc.CompressionReport().add_stage("a", model), kc.profile(model)
    assert (found.source, found.params, found.nonzero, found.macs, found.bytes) == (
        ("keras", costs.params, costs.nonzero, costs.macs, costs.bytes)
    )
    assert found.nonzero == found.params - 18
    unknown = (found.latency, found.gzip_bytes, found.seconds, found.samples)
    assert unknown == (None,) * 4
    conv, dense = found.layers
    assert (conv.name, conv.kind, conv.weights) == ("conv", "Conv2D", 72)
    assert (conv.zeros, conv.sparsity, conv.bits) == (18, 0.25, 32)
    assert (dense.name, dense.weights, dense.zeros) == ("dense", 36 * 4 * 3, 0)


@pytest.mark.parametrize("kind, bits", [("none", 32), ("float16", 16), ("int8", 8)])
def test_the_account_of_a_file_is_what_inspect_reads(made, kind, bits):
    model, files = made
    found = kc.CompressionReport().add_stage("a", files[kind])
    profile = tflite_export.inspect(files[kind])
    assert (found.source, found.bytes) == ("tflite", files[kind].stat().st_size)
    assert (found.gzip_bytes, found.macs) == (profile.gzip_bytes, profile.macs)
    assert found.params == model.count_params()
    kernels = sum(layer.weights for layer in found.layers)
    assert kernels == sum(row.kernel_weights for row in profile.ops) == 504
    zeros = sum(layer.zeros for layer in found.layers)
    assert zeros / kernels == profile.sparsity > 0
    assert found.nonzero == found.params - zeros
    assert {layer.bits for layer in found.layers} == {bits}
    assert found.layers[0].name == "conv"
    assert found.latency.threads == 1 and found.latency.cpu
    assert 0 < found.latency_ms <= found.latency.p90_ms


def test_the_values_in_an_int8_file_are_those_of_the_model_to_half_a_step(made):
    model, files = made
    report = kc.CompressionReport()
    before, after = report.add_stage("a", model), report.add_stage("b", files["int8"])
    for layer, rounded in zip(before.layers, after.layers, strict=True):
        step = 2 * layer.histogram.limit / 254
        assert rounded.histogram.limit == pytest.approx(layer.histogram.limit, abs=step)
    kernels = [
        np.array(layer.kernel).ravel() for layer in model.layers if layer.weights
    ]
    size = np.abs(np.concatenate(kernels))
    assert before.histogram.limit == pytest.approx(np.percentile(size, 99.9))
    assert sum(before.histogram.counts) + before.histogram.beyond == 504
    edges = before.histogram.edges()
    middle = before.histogram.counts[40]
    assert middle == (size < edges[41]).sum() >= 18


def test_a_shared_layer_and_a_separable_one_count_their_kernels_once(tmp_path):
    x = keras.Input((6, 6, 3))
    shared = layers.Conv2D(3, 3, padding="same", use_bias=False, name="shared")
    y = layers.SeparableConv2D(4, 3, use_bias=False, name="apart")(shared(shared(x)))
    y = layers.Dense(2, use_bias=False)(layers.GlobalAveragePooling2D()(y))
    model = keras.Model(x, y)
    tflite_export.export(model, tmp_path / "m.tflite", quantization="none")
    report = kc.CompressionReport()
    before = report.add_stage("a", model)
    after = report.add_stage("b", tmp_path / "m.tflite")
    # The converter gives the two convolutions that lack a bias one of zeros.
    assert before.params == after.nonzero == 81 + 27 + 12 + 8
    assert after.params == before.params + 3 + 4
    assert [layer.weights for layer in before.layers] == [81, 39, 8]
    assert sum(layer.weights for layer in after.layers) == 128
    assert after.macs == before.macs


def test_json_gives_the_same_report_back(made, tmp_path):
    report = report_of(made)
    text = report.to_json(tmp_path / "report.json")
    again = kc.CompressionReport.from_json(tmp_path / "report.json")
    assert again.stages == report.stages
    assert again.to_json() == text == (tmp_path / "report.json").read_text()
    assert (again.title, again.commands) == (report.title, report.commands)
    assert again.environment == report.environment
    assert str(again) == str(report)
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]


def test_the_table_has_a_dash_for_what_is_not_known(made):
    lines = str(report_of(made)).splitlines()
    header, model, float_file = lines[1], lines[3].split(), lines[4].split()
    for name in ("accuracy", "loss", "parameters", "MACs", "gzip bytes", "seconds"):
        assert name in header
    bytes_ = f"{4 * made[0].count_params():,}"
    assert model[:3] == ["model", "75.00", "%"] and model[7] == bytes_
    assert [model[3], *model[8:10]] == ["—"] * 3 and model[10:] == ["400", "1.5"]
    assert float_file[3] == "0.5" and float_file[-2:] == ["—", "—"]
    assert (
        "1 thread" in lines[-1] and report_of(made).stages[1].latency.cpu in lines[-1]
    )


def test_rich_prints_every_stage(made):
    rich = pytest.importorskip("rich.console")
    console = rich.Console(width=140)
    with console.capture() as captured:
        console.print(report_of(made))
    for text in ("Small", "float", "int8", "75.00 %"):
        assert text in captured.get()


def test_a_model_is_only_read(made):
    model, _ = made
    before = [np.array(weight) for weight in model.weights]
    kc.CompressionReport().add_stage("a", model)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_the_metric_of_the_plots_is_the_first_one_or_the_one_that_is_named(made):
    report = report_of(made)
    assert report.metric == "accuracy"
    assert kc.CompressionReport().metric is None
    assert kc.CompressionReport(metric="loss").metric == "loss"
