# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first.
# Needs python3 (3.11 or newer, with venv), a C++20 compiler and make; everything else comes from PyPI into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: setup demo test lint format bench sanitize clean

setup: $(STAMP)

# torch is pinned: a plain `torch` would pull gigabytes of CUDA builds. The package itself accepts torch >= 2.11.
$(STAMP): pyproject.toml requirements-dev.txt CMakeLists.txt csrc/CMakeLists.txt csrc/bindings/CMakeLists.txt
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

clean:
	rm -rf $(VENV) build build-*
