"""What `import keras_compress` does to the process, and that its examples run."""

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import keras_compress


def test_importing_loads_neither_tfmot_nor_keras_2():
    code = (
        "import sys, keras_compress; print([m for m in sys.modules if m.split('.')[0] "
        "in ('tensorflow_model_optimization', 'tf_keras', 'tflite_export')])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


@pytest.mark.slow
def test_importing_adds_at_most_a_twentieth_and_5_megabytes_to_keras():
    """0.1 s of 2.5 s on two busy cores; a share is the same on any machine."""
    code = (
        "import resource, time\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "begin = time.process_time()\n"
        "import keras\n"
        "start, before = time.process_time(), peak()\n"
        "import keras_compress\n"
        "share = (time.process_time() - start) / (start - begin)\n"
        "print(share, (peak() - before) / 1024)"
    )
    measured = [
        map(float, subprocess.check_output([sys.executable, "-c", code]).split())
        for _ in range(5)
    ]
    shares, megabytes = zip(*measured, strict=True)
    assert min(shares) <= 0.05
    assert min(megabytes) <= 5


MODULES = [
    m.name
    for m in pkgutil.walk_packages(keras_compress.__path__, "keras_compress.")
    if not m.ispkg
]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_docstrings_print_what_they_say(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
