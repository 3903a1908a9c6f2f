# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
# Needs python3 (3.11 or newer, with venv), a C++20 compiler and make; everything else comes from PyPI into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint format bench sanitize gpu-check clean

setup: $(STAMP)

# torch is pinned to a version whose CPU build an index or a directory of wheels may offer; PyPI's own Linux wheel
# contains CUDA. To be sure of the small one: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make setup
# A change of any C++ or CUDA source rebuilds what it touches.
SOURCES := $(shell find csrc cmake CMakeLists.txt -type f 2>/dev/null)
$(STAMP): pyproject.toml requirements-dev.txt $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

demo: setup
	$(BIN)/python -m qforensics demo

test: setup
	$(BIN)/python -m pytest

lint: setup
	BIN=$(BIN) tools/lint.sh

format: setup
	$(BIN)/ruff format python tests benchmarks
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp')

bench: setup
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/demo.py

sanitize: setup
	BIN=$(BIN) tools/sanitize.sh

# on a machine with an NVIDIA GPU: tests, compute-sanitizer, benchmarks; writes a report into benchmarks/results
gpu-check: setup
	PYTHON=$(BIN)/python tools/gpu_check.sh

clean:
	rm -rf $(VENV) build build-*
