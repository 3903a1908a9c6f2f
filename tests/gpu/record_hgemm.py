# ruff: noqa
"""cublasHgemm as vLLM's gptq path calls it, over many shapes: outputs and kernel names."""

import json, os, sys
import numpy as np, torch

from cublas_hgemm import hgemm, rows_of, weights

OUT = sys.argv[1]
from torch.profiler import profile, ProfilerActivity

shapes = [
    (1280, 768),
    (768, 768),
    (3072, 768),
    (768, 1536),
    (512, 256),
    (1024, 4096),
    (1024, 512),
    (4096, 4096),
    (6144, 4096),
    (24576, 4096),
    (4096, 12288),
    (2048, 2048),
]
Ms = [51, 64, 65, 72, 96, 120, 128, 129, 192, 230, 256, 257, 384, 512, 540, 1024, 1300]
arrays, metas = {}, []
seed = 5000
for N, K in shapes:
    w = weights(seed, K, N)
    for M in Ms:
        if N * K > 8e6 and M > 300:
            continue
        a = rows_of(seed, M, K)
        out = hgemm(w, a)
        torch.cuda.synchronize()
        same = all(torch.equal(hgemm(w, a), out) for _ in range(3))
        with profile(activities=[ProfilerActivity.CUDA]) as p:
            hgemm(w, a)
            torch.cuda.synchronize()
        ev = [
            e
            for e in p.events()
            if e.device_type == torch.autograd.DeviceType.CUDA and "emcpy" not in e.name and "emset" not in e.name
        ]
        cols = np.unique(np.concatenate([np.arange(0, N, max(1, N // 64)), [N - 1]]))
        rows = np.unique(np.concatenate([np.arange(0, M, max(1, M // 24)), [M - 1]]))
        key = f"n{N}k{K}m{M}"
        arrays[key] = out.view(torch.int16).cpu().numpy().view(np.uint16)[np.ix_(rows, cols)]
        metas.append(
            dict(
                id=key,
                N=N,
                K=K,
                M=M,
                seed=seed,
                same=same,
                kernels=[e.name[:200] for e in ev],
                rows=rows.tolist(),
                cols=cols.tolist(),
            )
        )
    seed += 1
np.savez_compressed(OUT + "/hgemm.npz", **arrays)
json.dump(
    dict(
        gpu=torch.cuda.get_device_name(),
        torch=torch.__version__,
        workspace=os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        cases=metas,
    ),
    open(OUT + "/hgemm.json", "w"),
)
print(len(metas), "cases", sum(not m["same"] for m in metas), "vary")
