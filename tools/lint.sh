#!/usr/bin/env bash
# Formatting, static checks, and the CUDA compilation of the host + device headers.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
"$BIN/ruff" check python tests benchmarks notebooks docs
"$BIN/mypy"
git ls-files 'csrc/*.h' 'csrc/*.cpp' | xargs "$BIN/clang-format" --dry-run --Werror
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
"$BIN/cmake" -S . -B "$build" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$BIN/ninja" -DPython_EXECUTABLE="$PWD/$BIN/python" >/dev/null
# the compilation database is gcc's: clang does not know all of its warning flags
git ls-files 'csrc/*.cpp' | xargs -P 2 -n 4 "$BIN/clang-tidy" -p "$build" --quiet --warnings-as-errors='*' \
  --extra-arg=-Wno-unknown-warning-option
BIN="$BIN" tools/check_device_headers.sh
