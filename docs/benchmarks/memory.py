"""Memory: of a training step with and without activation checkpointing, and of a fit as a memory map grows.

    python docs/benchmarks/memory.py

Every figure is the peak resident memory of a process of its own (Linux).
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step(checkpointing: bool) -> dict:
    """One step of a deep U-Net on 64 images of 3 x 48 x 48."""
    import time

    import torch

    from flowmatch.networks import UNet

    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = UNet(width=32, multipliers=(1, 2, 4), n_blocks=6)((3, 48, 48), 0)
    for parameter in network.parameters():  # so that no gradient is zero by initialization
        torch.nn.init.normal_(parameter, std=0.03)
    for module in network.modules():
        if hasattr(module, "activation_checkpointing"):
            module.activation_checkpointing = checkpointing
    x, t = torch.randn(64, 3, 48, 48), torch.rand(64)
    network(x[:1], t[:1]).square().mean().backward()  # gradients and kernels are there
    network.zero_grad(set_to_none=False)
    before, started = peak(), time.process_time()
    network(x, t).square().mean().backward()
    seconds = time.process_time() - started
    gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
    return {
        "before": before,
        "peak": peak(),
        "seconds": seconds,
        "gradient": gradient[:: len(gradient) // 1000].tolist(),
    }


def fit(path: str) -> dict:
    """A short fit to a memory map of images."""
    from flowmatch import FlowMatchingGenerator
    from flowmatch.networks import UNet

    images = np.load(path, mmap_mode="r")
    FlowMatchingGenerator(network=UNet(width=8), max_iter=30, batch_size=64, random_state=0).fit(images)
    return {"peak": peak()}


def in_own_process(*arguments: str) -> dict:
    run = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def main() -> None:
    plain, checkpointed = in_own_process("step", "0"), in_own_process("step", "1")
    difference = (
        np.abs(np.subtract(plain["gradient"], checkpointed["gradient"])).max() / np.abs(plain["gradient"]).max()
    )
    print("| activation checkpointing | peak MiB | of it the step | CPU s |\n| --- | --- | --- | --- |")
    for name, result in (("off", plain), ("on", checkpointed)):
        own = result["peak"] - result["before"]
        print(f"| {name} | {result['peak']:.0f} | {own:.0f} | {result['seconds']:.1f} |")
    print(f"\nLargest difference of the gradients: {difference:.1e} of the largest gradient\n")

    print("| rows of a memory map, 28 x 28 float32 | file MiB | peak MiB of the fit |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for rows in (20_000, 200_000):
            path = Path(folder) / "images.npy"
            images = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 1, 28, 28))
            for start in range(0, rows, 10_000):
                images[start : start + 10_000] = np.random.default_rng(start).normal(size=(10_000, 1, 28, 28))
            images.flush()
            del images
            print(f"| {rows} | {path.stat().st_size / 2**20:.0f} | {in_own_process('fit', str(path))['peak']:.0f} |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["step"]:
        print(json.dumps(step(sys.argv[2] == "1")))
    elif sys.argv[1:2] == ["fit"]:
        print(json.dumps(fit(sys.argv[2])))
    else:
        main()
