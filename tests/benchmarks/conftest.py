"""Makes `benchmarks` importable, whichever way pytest was started."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))


@pytest.fixture
def root() -> pathlib.Path:
    """The project's root."""
    return ROOT
