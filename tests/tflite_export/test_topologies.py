"""int8 files of the nets in `topologies.py`: in Keras, LiteRT and tflite-micro."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tflite_export
from tflite_export.compare import output_grids
from tflite_export.micro import verify_micro

from .topologies import POOLS, QUICK, REFUSED, SLOW, SUM, TWO_WAYS, Topology, built

# LiteRT's reference kernels round the sums of these once, tflite-micro's twice.
ROUNDED_TWICE = {"FULLY_CONNECTED", "BATCH_MATMUL"}


@dataclass(frozen=True)
class Case:
    """An exported file, and what it was made from."""

    topology: Topology
    path: Path
    x: np.ndarray | list[np.ndarray]
    result: tflite_export.ExportResult

    @property
    def agreements(self) -> list[tflite_export.Agreement]:
        found = self.result.agreement
        return list(getattr(found, "outputs", {"": found}).values())

    def codes(self, kernels: str) -> np.ndarray:
        """The int8 values of all outputs, as one row of numbers."""
        grids = output_grids(self.path)
        found = tflite_export.predict(self.path, self.x, kernels=kernels)
        if not isinstance(found, dict):
            found = {next(iter(grids)): found}
        return np.concatenate([grids[n].codes(v).ravel() for n, v in found.items()])


def export(topology, path):
    model, x = built(topology)
    words = topology.inputs == ("words",)
    result = tflite_export.export(
        model,
        path,
        representative_data=x,
        input_dtype="float32" if words else "int8",
        output_dtype="int8",
    )
    return Case(topology, path, x, result)


@pytest.fixture(
    scope="module",
    params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def case(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / "m.tflite"
    return export((QUICK | SLOW)[request.param], path)


def test_the_file_has_no_float_ops_and_is_close_to_keras(case):
    assert not case.result.float_ops
    for found in case.agreements:
        assert found.max_abs_diff <= case.topology.keras_steps * found.output_step


def test_all_kernels_give_nearly_the_same(case):
    base, others = "reference", ["builtin", "xnnpack"]
    if case.topology.reference:
        with pytest.raises(ValueError, match=case.topology.reference):
            case.codes("reference")
        base = others.pop(0)
    expected = case.codes(base)
    for kernels in others:
        apart = np.abs(case.codes(kernels) - expected)
        assert apart.max() <= case.topology.kernel_steps
        assert (apart == 0).mean() > 0.7


def test_tflite_micro_gives_what_the_reference_kernels_give(case):
    if case.topology.micro:
        with pytest.raises(ValueError, match=case.topology.micro):
            verify_micro(case.path, case.x)
        return
    check = verify_micro(case.path, case.x)
    if ROUNDED_TWICE & set(case.result.ops):
        assert check.max_difference <= case.topology.kernel_steps
        assert check.different <= 0.1 * check.values
    else:
        assert check.equal


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_int8_lacks_is_refused_by_op_and_layer(name, tmp_path):
    topology, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        export(topology, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_values_before_a_pool_and_a_concatenation_are_not_clipped(tmp_path):
    case = export(POOLS, tmp_path / "m.tflite")
    step = case.result.agreement.output_step
    assert case.result.agreement.max_abs_diff <= POOLS.keras_steps * step


@pytest.mark.slow
def test_a_split_with_an_unused_output_gives_the_same_file_every_time(tmp_path):
    """TensorFlow's converter leaves such a SPLIT in float in every other run."""
    model, x = built(TWO_WAYS)
    paths = [tmp_path / f"{place}.tflite" for place in range(4)]
    for path in paths:
        assert not tflite_export.export(model, path, representative_data=x).float_ops
    assert len({path.read_bytes() for path in paths}) == 1


@pytest.mark.slow
def test_only_the_reference_kernel_of_sum_is_wrong(tmp_path):
    """LiteRT's int8 SUM gives the zero point for everything, tflite-micro's the sum."""
    case = export(SUM, tmp_path / "m.tflite")
    expected, found = case.codes("builtin"), case.codes("reference")
    assert np.abs(case.codes("xnnpack") - expected).max() <= 2
    assert len(np.unique(found)) == 1
    check = verify_micro(case.path, case.x)
    assert check.max_difference == np.abs(expected - found).max() > 50
