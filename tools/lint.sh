#!/usr/bin/env bash
# Formatting, static checks, and the CUDA compilation of the host + device headers.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
"$BIN/ruff" check python tests benchmarks
"$BIN/mypy"
git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs "$BIN/clang-format" --dry-run --Werror
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$BIN/cmake" -S . -B "$build" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$BIN/ninja" -DPython_EXECUTABLE="$PWD/$BIN/python" >/dev/null
git ls-files 'csrc/*.cpp' | xargs -P 2 -n 4 "$BIN/clang-tidy" -p "$build" --quiet --warnings-as-errors='*'
BIN="$BIN" tools/check_device_headers.sh
