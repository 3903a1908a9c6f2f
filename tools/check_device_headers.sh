#!/usr/bin/env bash
# Compiles every header that marks functions QF_HD with nvcc, for sm_80 and sm_90, and calls one of them in a kernel.
#
# Such a header says which, in a line of its own:   // nvcc: <statement>
# with `float* x`, `uint32_t* u` and `const qf::SfuView& sfu` at hand. A header with QF_HD and no such line fails.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v nvcc >/dev/null || { echo "check_device_headers: nvcc is not on PATH" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
count=0
sources=()
# headers beside .cu files (cuda folders, native kernels) are compiled with them
for header in $(git ls-files --cached --others --exclude-standard 'csrc/*.h' ':!csrc/**/cuda/*' ':!csrc/kernels/native/*'); do
  grep -q 'QF_HD' "$header" || continue
  [ "$header" = csrc/base/host_device.h ] && continue
  statement=$(sed -n 's|^// nvcc: ||p' "$header")
  if [ -z "$statement" ]; then
    echo "$header: marks functions QF_HD but has no '// nvcc: <statement>' line" >&2
    status=1
    continue
  fi
  count=$((count + 1))
  source="$work/$(echo "${header#csrc/}" | tr '/.' '__').cu"
  # the header under test first, so that it must include what it needs
  printf '#include "%s"\n#include "numerics/special_function_unit.h"\n__global__ void check_%d(float* x, uint32_t* u, qf::SfuView sfu) {\n  %s\n}\n' \
    "${header#csrc/}" "$count" "$statement" >"$source"
  sources+=("$source")
done
flags=(-std=c++20 -Icsrc -ftz=false -prec-div=true -prec-sqrt=true -Werror all-warnings
       -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90)
for source in "${sources[@]}"; do
  if ! nvcc "${flags[@]}" -c "$source" -o "$work/out.o"; then
    echo "$(basename "$source" .cu): nvcc failed" >&2
    status=1
  fi
done
[ "$status" = 0 ] && echo "$count headers compiled for sm_80 and sm_90"
exit "$status"
