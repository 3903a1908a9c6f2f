"""The native Marlin kernel over small problems, for compute-sanitizer, compared with the CPU emulator:

export PYTHONPATH=python:tests:tests/gpu
for tool in memcheck racecheck initcheck synccheck; do
  compute-sanitizer --tool $tool --error-exitcode 9 python tests/gpu/sanitize_marlin.py
done
"""

from test_native_marlin import assert_native_equals_cpu, inputs_of

# M, N, K, group, weights without zero points: clusters; clusters whose blocks have one warp row each; warps side by
# side over the rows and stages that are used again; many strips, without clusters
PROBLEMS = [
    (3, 512, 1024, 128, False),
    (20, 640, 576, 64, False),
    (40, 512, 4096, 32, True),
    (64, 18432, 256, -1, False),
]

if __name__ == "__main__":
    for m, n, k, group, symmetric in PROBLEMS:
        for dtype in ("fp16", "bf16"):
            inputs = inputs_of("normal", m, n, k, group, symmetric=symmetric, dtype=dtype, seed=1)
            assert_native_equals_cpu(inputs, group_size=group, device="h200")
            print(f"M = {m}, N = {n}, K = {k}, group {group}, {dtype}: same bits", flush=True)
