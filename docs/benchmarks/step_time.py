"""Cost of the training loop: steps of a U-Net in `fit` against a bare hand-written loop around the same network.

    OMP_NUM_THREADS=1 python docs/benchmarks/step_time.py

The network has the size of small tutorials: 64 and 128 channels on 28 x 28 images, batches of 64. Both loops draw noise
and times, interpolate and make an AdamW step; `fit` also clips gradients, averages weights and watches for NaN. Rounds
alternate, and CPU time is counted, because machines are noisy.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F

from flowmatch import FlowMatchingGenerator
from flowmatch.networks import UNet
from flowmatch.training import TrainingOptions

STEPS, ROUNDS, BATCH = 4, 5, 64
NETWORK = UNet(width=64, multipliers=(1, 2), patch_size=1)


def bare(images: torch.Tensor) -> float:
    """CPU seconds a step of the loop that a tutorial would write."""
    network = NETWORK((1, 28, 28), 0)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-4)
    started = time.process_time()
    for _ in range(STEPS):
        x1 = images[torch.randint(len(images), (BATCH,))]
        x0, t = torch.randn_like(x1), torch.rand(BATCH)
        shape = t.view(-1, 1, 1, 1)
        loss = F.mse_loss(network((1 - shape) * x0 + shape * x1, t), x1 - x0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.process_time() - started) / STEPS


class Clock:
    """CPU seconds between the first step and the last."""

    def on_fit_task_begin(self, estimator, context):
        if context.task_id == 0:
            self.started = time.process_time()

    def on_fit_task_end(self, estimator, context):
        self.seconds = time.process_time() - self.started


def ours(images: np.ndarray) -> float:
    """CPU seconds a step of `fit`."""
    clock = Clock()
    options = TrainingOptions(callbacks=[clock], report_period=STEPS)
    FlowMatchingGenerator(network=NETWORK, max_iter=STEPS, batch_size=BATCH, training=options).fit(images)
    return clock.seconds / STEPS


def main() -> None:
    images = np.random.default_rng(0).normal(size=(2000, 1, 28, 28)).astype(np.float32)
    tensor = torch.as_tensor(images)
    bare(tensor), ours(images)  # warm up
    rounds = np.array([(bare(tensor), ours(images)) for _ in range(ROUNDS)])
    ratios = rounds[:, 1] / rounds[:, 0]
    print(f"bare {np.median(rounds[:, 0]):.3f} s a step, fit {np.median(rounds[:, 1]):.3f} s a step")
    print(f"ratio: median {np.median(ratios):.3f}, from {ratios.min():.3f} to {ratios.max():.3f}")


if __name__ == "__main__":
    main()
