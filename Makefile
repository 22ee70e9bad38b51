# Both targets set up everything they need in .venv, from a bare checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-slow lint clean

demo: $(VENV)/ready
	$(BIN)/python examples/compress_vgg16.py

test: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
