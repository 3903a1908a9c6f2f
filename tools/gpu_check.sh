#!/usr/bin/env bash
# Everything that needs an NVIDIA GPU, and a report of it in benchmarks/results, named after the GPU: the GPU tests,
# compute-sanitizer over every script tests/gpu/sanitize_*.py, the benchmarks benchmarks/cuda_*.py and native_*.py.
# ORIGINAL: vLLM's _C library, to time its kernels beside ours. LIMIT: seconds for a sanitizer or benchmark (600). Exit
# code 1 where a part failed.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export QFORENSICS_REQUIRE_GPU=1 PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}tests:tests/gpu"

gpu=$("$PYTHON" -c 'from qforensics import _core; print(_core.gpu_info(0)["name"])') || exit 2
report=${REPORT:-benchmarks/results/gpu_check_$(tr 'A-Z ' 'a-z_' <<<"${gpu#NVIDIA }").md}
failed=0

part() { # title, seconds, lines of output to keep, command
  local title=$1 limit=$2 keep=$3 started=$SECONDS output status
  shift 3
  output=$(timeout "$limit" "$@" 2>&1)
  status=$?
  [ "$status" = 0 ] || failed=1
  echo "$title: exit code $status, $((SECONDS - started)) s"
  printf '\n## %s\n\nExit code %s, %s s.\n\n```\n%s\n```\n' \
    "$title" "$status" "$((SECONDS - started))" "$(tail -n "$keep" <<<"$output")" >>"$report"
}

{
  echo "# GPU check: $gpu"
  echo
  echo "$(date -u +%F), commit ${COMMIT:-$(git rev-parse --short HEAD)}, driver and CUDA:" \
    "$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1), $(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
} >"$report"

part "Tests" 1500 15 "$PYTHON" -m pytest -q -p no:cacheprovider tests/gpu
for script in tests/gpu/sanitize_*.py; do
  for tool in memcheck racecheck initcheck synccheck; do
    part "compute-sanitizer $tool, $(basename "$script")" "${LIMIT:-600}" 12 \
      env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" "$script"
  done
done
for script in benchmarks/cuda_*.py benchmarks/native_*.py; do
  [ -e "$script" ] || continue
  original=()
  [[ $script == *native_kernels.py && -n ${ORIGINAL:-} ]] && original=(--original "$ORIGINAL")
  part "$(basename "$script")" "${LIMIT:-600}" 200 "$PYTHON" "$script" "${original[@]}"
done
echo "report: $report"
exit "$failed"
