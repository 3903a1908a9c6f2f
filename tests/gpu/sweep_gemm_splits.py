# ruff: noqa
"""Which cuBLAS kernels run for the demo model's and 8B layers' shapes at every M: names and grids (split = grid z)."""

import json, os, sys, tempfile, re
import numpy as np, torch
from torch.profiler import profile, ProfilerActivity

from cublas_hgemm import DEVICE as dev, hgemm, rows_of, weights

OUT = sys.argv[1]


def linear(w, a):
    return torch.nn.functional.linear(a, w)


def matmul(w, a):
    return torch.matmul(a, w)


def sweep(fn, w, K, Ms):
    big = torch.randn(max(Ms), K, device=dev, dtype=torch.float16)
    rows = []
    for i in range(0, len(Ms), 200):
        part = Ms[i : i + 200]
        with profile(activities=[ProfilerActivity.CUDA]) as p:
            for m in part:
                fn(w, big[:m])
            torch.cuda.synchronize()
        f = tempfile.mktemp(suffix=".json")
        p.export_chrome_trace(f)
        ev = json.load(open(f))["traceEvents"]
        os.unlink(f)
        k = sorted([e for e in ev if e.get("cat") == "kernel"], key=lambda e: e["ts"])
        groups = []
        for e in k:
            if "splitKreduce" in e["name"]:
                groups[-1][2] = True
            else:
                groups.append([re.sub(r"^void cutlass::Kernel2<|>.*$", "", e["name"])[:80], e["args"]["grid"], False])
        if len(groups) != len(part):
            print("mismatch", len(groups), len(part))
        rows += [[m, *g] for m, g in zip(part, groups)]
    return rows


demo = [(1280, 768), (768, 768), (3072, 768), (768, 1536)]
big8 = [(6144, 4096), (4096, 4096), (24576, 4096), (4096, 12288)]
res = {}
arrays = {}
for N, K in demo + big8:
    small = (N, K) in demo
    w = (torch.randn(K, N, device=dev) * 0.02).half()
    wt = w.t().contiguous()
    res[f"hgemm n{N}k{K}"] = sweep(hgemm, w, K, list(range(51, 1401 if small else 521)))
    res[f"linear n{N}k{K}"] = sweep(linear, wt, K, list(range(1, 1401 if small else 521)))
    if small:
        res[f"matmul n{N}k{K}"] = sweep(matmul, w, K, list(range(256, 1401)))
w = (torch.randn(49152, 768, device=dev) * 0.02).half()
res["linear n49152k768"] = sweep(linear, w, 768, list(range(1, 1401)))
for key, rows in res.items():
    kind, nk = key.split()
    N, K = map(int, re.match(r"n(\d+)k(\d+)", nk).groups())
    splits = [r for r in rows if r[3]] if kind != "hgemm" else []
    print(
        key,
        len(rows),
        "split at",
        len(splits) if kind != "hgemm" else sum(r[3] for r in rows),
        [(r[0], r[1][-40:], r[2]) for r in splits[:3]],
    )
    seed = N + K
    for r in splits[:: max(1, len(splits) // 20)]:
        M = r[0]
        wn, a = weights(seed, K, N), rows_of(seed, M, K)
        o = (
            (linear(wn.t().contiguous(), a) if kind == "linear" else matmul(wn, a))
            .view(torch.int16)
            .cpu()
            .numpy()
            .view(np.uint16)
        )
        arrays[f"{kind}_n{N}k{K}m{M}"] = o[:: max(1, M // 16), :: max(1, N // 96)]
json.dump(dict(gpu=torch.cuda.get_device_name(), torch=torch.__version__, rows=res), open(OUT + "/sweep.json", "w"))
np.savez_compressed(OUT + "/sweep.npz", **arrays)
