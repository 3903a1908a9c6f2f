"""The native kernels of pieces over small problems, for compute-sanitizer, compared with the CPU emulator:

export PYTHONPATH=python:tests:tests/gpu
for tool in memcheck racecheck initcheck synccheck; do
  compute-sanitizer --tool $tool --error-exitcode 9 python tests/gpu/sanitize_pieces.py
done
"""

from test_native_pieces import assert_native_equals_cpu, inputs_of

# M, N, K, group: pieces of one tile in several blocks; stages that are used again; rows and columns that end inside a
# tile; tiles of every number of rows
PROBLEMS = [(3, 256, 2048, 128), (20, 384, 1536, 64), (40, 640, 1024, 128), (130, 384, 1024, -1), (300, 1280, 768, 64)]

if __name__ == "__main__":
    for m, n, k, group in PROBLEMS:
        for kernel, dtype, call in (
            ("machete", "fp16", {}),
            ("machete", "bf16", {}),
            ("hgemm", "fp16", {"split": 2}),
        ):
            inputs = inputs_of("normal", m, n, k, group, dtype=dtype, seed=1)
            assert_native_equals_cpu(kernel, inputs, group, **call)
            print(f"{kernel}: M = {m}, N = {n}, K = {k}, group {group}, {dtype}: same bits", flush=True)
