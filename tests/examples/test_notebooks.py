"""The notebooks are stripped, name what exists, and run from top to bottom."""

import ast
import os
import pathlib
import re
import sys

import nbclient
import nbformat
import pytest

import keras_compress as kc
import tflite_export

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NAMES = ["quick_start", "distil_vgg16", "prune", "qat_and_export", "android"]
PACKAGES = {"kc": kc, "tflite_export": tflite_export}
# Put in front of a notebook: what its code or ours warns of is an error.
WARNINGS_ARE_ERRORS = """
import warnings
modules = "__main__|keras_compress|tflite_export|image_data|students|vgg16_models"
warnings.filterwarnings("error", module=modules)
"""


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def code_cells(name):
    return [cell for cell in read(name).cells if cell.cell_type == "code"]


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_valid_and_stripped(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert cell.execution_count is None, cell.id
            assert not cell.outputs, cell.id


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_notebook_compiles_and_names_what_exists(name):
    used = set()
    for cell in code_cells(name):
        for node in ast.walk(ast.parse(cell.source, cell.id)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not os.path.isabs(node.value), node.value
            owner = getattr(node, "value", None)
            if isinstance(node, ast.Attribute) and isinstance(owner, ast.Name):
                used.add((owner.id, node.attr))
    used = {(owner, attribute) for owner, attribute in used if owner in PACKAGES}
    assert used
    for package, attribute in used:
        assert attribute in PACKAGES[package].__all__, f"{package}.{attribute}"


@pytest.mark.parametrize("name", NAMES)
def test_the_links_of_a_notebook_lead_somewhere(name):
    texts = [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]
    for target in re.findall(r"\]\(([^)#]+)", "\n".join(texts)):
        assert (FOLDER / target).is_file(), target


def set_up(folder, monkeypatch):
    """What the first code cell, which all notebooks share, prepends to sys.path."""
    [source] = {code_cells(name)[0].source for name in NAMES}
    monkeypatch.setattr(sys, "path", before := list(sys.path))
    known = list(before)
    monkeypatch.chdir(folder)
    exec(compile(source, "setup", "exec"), {})
    assert sys.path[1:] == known
    return pathlib.Path(sys.path[0])


@pytest.mark.parametrize("folder", [FOLDER, FOLDER.parent, ROOT])
def test_a_notebook_finds_the_examples_from(folder, monkeypatch):
    assert set_up(folder, monkeypatch) == FOLDER.parent


def test_a_notebook_outside_a_checkout_says_so(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"open this notebook in its own"):
        set_up(tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_COMPRESS_QUICK", "1")
    # Its files, and no settings of the person who runs the test.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = read(name)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(WARNINGS_ARE_ERRORS))
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    ]
    assert any("image/png" in output.get("data", ()) for output in outputs)
    assert list(tmp_path.rglob("*.tflite")) or name == "distil_vgg16"
