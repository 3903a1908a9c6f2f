#!/usr/bin/env bash
# ASan + UBSan build of _core with the tests that exercise it, then libFuzzer (atheris) for SECONDS_EACH on every reader.
# Not part of every CI run: it takes about an hour on two cores, and runs at the lowest priority.
# The largest recorded GEMMs are left out: they walk the same code for minutes each under the sanitizers.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-.venv/bin}
renice -n 19 -p $$ >/dev/null
SECONDS_EACH=${SECONDS_EACH:-60}

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp -r python "$copy/"
rm -f "$copy"/python/qforensics/*.so
"$BIN/cmake" -S . -B "$copy/build" -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/$BIN/ninja" -DPython_EXECUTABLE="$PWD/$BIN/python" \
  -DQF_SANITIZE=ON -DQF_ENGINE=OFF -DQF_CUDA=OFF -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
"$BIN/cmake" --build "$copy/build" --parallel 2
cp "$copy"/build/csrc/bindings/_core*.so "$copy/python/qforensics/"

# An interpreter that sees the packages of .venv, but not the editable qforensics installed there, whose import hook
# would win over PYTHONPATH: .pth files are not followed from a directory that a .pth file names.
packages() { "$1" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])'; }
"$BIN/python" -m venv --without-pip "$copy/venv"
python=$copy/venv/bin/python
packages "$BIN/python" >"$(packages "$python")/packages.pth"
export PYTHONPATH="$copy/python"

# The interpreter is not instrumented: the runtime is loaded first, and Python's own leaks are not ours.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
found=$("$python" -c 'from qforensics import _core; print(_core.__file__)')
[[ $found == "$copy"/* ]] || { echo "sanitize: expected the sanitized _core in $copy, found $found" >&2; exit 1; }
"$python" -m pytest -q -p no:cacheprovider tests/test_dot_chain.py tests/test_formats.py \
  tests/test_matrix_unit.py tests/test_special_functions.py tests/test_kernels_*.py tests/test_operators_*.py \
  tests/test_forensics_core.py tests/test_comparison.py tests/test_hostile_arrays.py tests/test_specials.py \
  -k 'not 12288 and not 24576 and not (split and k4096)'
unset LD_PRELOAD PYTHONPATH

"$BIN/python" -m pip install --quiet atheris
for reader in $("$BIN/python" tests/fuzz/readers.py --list); do
  echo "fuzzing $reader for $SECONDS_EACH s"
  "$BIN/python" tests/fuzz/readers.py "$reader" -max_total_time="$SECONDS_EACH" -rss_limit_mb=2048 -len_control=0 -max_len=256
done
