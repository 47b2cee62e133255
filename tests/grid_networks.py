"""Networks for the tests: weights moved off their start, where the output is zero."""

import torch


def shaken(component, shape, condition_size=0, seed=0, scale=0.3, dtype=torch.float64, **settings):
    """A network whose weights are perturbed by noise of the size that keeps activations of order one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = component(shape, condition_size, **settings).to(dtype)
        with torch.no_grad():
            for p in network.parameters():
                p.add_(scale * torch.randn(p.shape, dtype=dtype) / max(1, p[0].numel()) ** 0.5)
    return network


def normal(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def times(n, seed=2):
    return torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
