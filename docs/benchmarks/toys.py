"""Sliced W2 of 2-D toys by number of evaluations, against torchcfm with optimal-transport coupling.

Run beside `fmbench.py` (see `adapter_fmlibs.py`): ``OMP_NUM_THREADS=1 python toys.py [seeds...]``. Same toys, draws,
steps, batch, rate and network size for all.
"""

import sys

import adapter_fmlibs
import fmbench
import numpy as np
import torch

SOLVERS = (("euler", 1), ("euler", 4), ("dopri5", 1))


def main(seeds):
    """Print geometric means over the toys, for each library and seed."""
    libraries = {"torchcfm": fmbench.TorchCFM, **adapter_fmlibs.adapters(fmbench.Adapter, fmbench.Net)}
    for name, adapter in libraries.items():
        scores = np.array([[score(adapter(), toy, seed) for toy in fmbench.TOYS] for seed in seeds])
        print(f"\n{name}: {[f'{s}{k}' if s == 'euler' else s for s, k in SOLVERS]}")
        for seed, of_seed in zip(seeds, scores, strict=True):
            print(f"  seed {seed}: geometric mean {np.exp(np.log(of_seed).mean(0)).round(4)}")
        for toy, of_toy in zip(fmbench.TOYS, scores.mean(0), strict=True):
            print(f"  {toy}: mean over seeds {of_toy.round(4)}")
        print(f"  all: {np.exp(np.log(scores).mean(1)).mean(0).round(4)}", flush=True)


def score(adapter, toy, seed):
    """Sliced W2 of one fit, for each solver."""
    adapter.width = fmbench.QWIDTH
    data, fresh = fmbench.toy(toy, 10_000, seed), fmbench.toy(toy, fmbench.NEVAL, 10_000 + seed)
    noise = torch.randn(fmbench.NEVAL, 2, generator=torch.Generator().manual_seed(777 + seed))
    model = adapter.fit(data, fmbench.STEPS, seed, "ot")
    return [fmbench.sliced_w2(adapter.sample(model, noise, s, k).detach(), fresh) for s, k in SOLVERS]


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])
