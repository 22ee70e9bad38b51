# Both targets set up everything they need in .venv, from a bare checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Most tests keep one core busy.
IN_PARALLEL := --numprocesses=2 --dist=worksteal
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test test-slow lint clean

demo: $(VENV)/ready
	$(BIN)/python examples/compress_vgg16.py

test: $(VENV)/ready
	$(BIN)/python -m pytest -m "not slow" $(IN_PARALLEL)

test-slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow $(IN_PARALLEL)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(VENV)/ready: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build dist *.egg-info
