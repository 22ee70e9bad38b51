"""What a report refuses, and that it stays as it was."""

import json

import keras
import numpy as np
import pytest

import keras_compress as kc


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


def refused(match, *args, **options):
    report = kc.CompressionReport()
    report.add_stage("first", build())
    with pytest.raises(ValueError, match=match):
        report.add_stage(*args, **options)
    assert [stage.name for stage in report.stages] == ["first"]


def test_a_report_without_a_stage_has_nothing_to_write(tmp_path):
    report = kc.CompressionReport("Empty")
    for write in (report.to_html, report.to_json):
        with pytest.raises(
            ValueError, match=r"'Empty' needs at least one stage.*add_s"
        ):
            write(tmp_path / "file")
    assert not list(tmp_path.iterdir())
    assert "add_stage" in str(report)


def test_a_name_that_is_taken():
    refused(r"must differ.*\['first'\].*name='first'.*'first 2'", "first", build())


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", 3, None])
def test_a_name_that_is_none(name):
    refused("`name` must be a str of printable characters", name, build())


def test_a_file_that_is_missing(tmp_path):
    refused(r"no file.*tflite_export\.export", "b", tmp_path / "missing.tflite")


def test_a_folder(tmp_path):
    refused("existing .tflite file", "b", tmp_path)


def test_a_keras_file_is_to_be_loaded_first(tmp_path):
    build().save(tmp_path / "m.keras")
    refused(r"keras\.saving\.load_model", "b", tmp_path / "m.keras")


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"not a model")
    refused("must be a valid .tflite file", "b", tmp_path / "m.tflite")


@pytest.mark.parametrize("model", [None, 3, np.zeros(3), keras.layers.Dense(2)])
def test_what_is_neither_a_model_nor_a_path(model):
    refused(r"must be a keras\.Model or the path.*of type", "b", model)


def test_a_model_that_is_not_built():
    refused("built", "b", keras.Sequential([keras.layers.Dense(2)]))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "0.9", None, True, [0.9], np.zeros(2), 1j]
)
def test_a_metric_that_is_no_finite_number(value):
    match = r"must hold finite numbers.*metrics\['accuracy'\].*Leave out"
    refused(match, "b", build(), {"accuracy": value})


@pytest.mark.parametrize("metrics", [0.9, [("accuracy", 0.9)], {3: 0.9}, {"a\nb": 1}])
def test_metrics_that_are_no_dict_of_names(metrics):
    refused(r"(?i)metrics.*Received: metrics=", "b", build(), metrics)


@pytest.mark.parametrize(
    "training",
    [3, {"epochs": 3}, {"seconds": -1}, {"samples": 1.5}, {"seconds": float("nan")}],
)
def test_training_of_another_form(training):
    refused("`training.*must be a.*Received", "b", build(), training=training)


def test_numbers_of_numpy_and_tensors_are_metrics():
    metrics = {"a": np.float32(0.5), "b": keras.ops.convert_to_tensor(0.25), "c": 1}
    stage = kc.CompressionReport().add_stage("a", build(), metrics)
    assert dict(stage.metrics) == {"a": 0.5, "b": 0.25, "c": 1.0}


@pytest.mark.parametrize("options", [{"title": ""}, {"title": 3}, {"metric": 3}])
def test_a_title_or_metric_of_another_kind(options):
    with pytest.raises(ValueError, match="must be a str that is not empty"):
        kc.CompressionReport(**options)


@pytest.mark.parametrize("commands", [3, [3], ["a", None]])
def test_commands_of_another_kind(commands):
    with pytest.raises(ValueError, match="`commands` must be a str or several"):
        kc.CompressionReport(commands=commands)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 99}', "\0"])
def test_json_of_another_kind(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"to_json wrote.*a\.json"):
        kc.CompressionReport.from_json(tmp_path / "a.json")


@pytest.mark.parametrize("key", ["macs", "layers", "histogram", "metrics"])
def test_json_with_a_stage_that_lacks_a_number(key, tmp_path):
    report = kc.CompressionReport()
    report.add_stage("a", build())
    content = json.loads(report.to_json())
    del content["stages"][0][key]
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"to_json wrote.*{key}"):
        kc.CompressionReport.from_json(tmp_path / "a.json")


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    report = kc.CompressionReport()
    report.add_stage("a", build())
    (tmp_path / "a.json").write_text("old")

    def failing(source, target):
        raise OSError("no space")

    monkeypatch.setattr("os.replace", failing)
    with pytest.raises(OSError, match="no space"):
        report.to_json(tmp_path / "a.json")
    assert (tmp_path / "a.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
