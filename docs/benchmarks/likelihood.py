"""Exact log-likelihood of 500 points: CPU time against `flow_matching`, and error against a closed form.

Run beside `fmbench.py`, whose network is used: ``OMP_NUM_THREADS=1 python likelihood.py``.
"""

import math
import time

import torch
from fmbench import Net

from flowmatch.flow import exact_divergence, log_likelihood, time_grid

torch.set_num_threads(1)
STEPS, ROWS, REPEATS = 20, 500, 5


def log_normal(x):
    """Log-density of the standard normal distribution."""
    return -0.5 * (x.square() + math.log(2 * math.pi)).sum(-1)


def cpu_ms(function):
    """Median CPU milliseconds of a call."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        times.append(1e3 * (time.process_time() - start))
    return sorted(times)[REPEATS // 2]


def main():
    """Print a row for each dimension."""
    from flow_matching.solver import ODESolver

    for d in (2, 16, 64):
        torch.manual_seed(0)
        net, x = Net(d), torch.randn(ROWS, d)

        def theirs(net=net, x=x):
            solver = ODESolver(net)
            return solver.compute_likelihood(x_1=x, log_p0=log_normal, step_size=1 / STEPS, exact_divergence=True)[1]

        def ours(net=net, x=x, d=d):
            divergence = exact_divergence(net, d)
            return log_likelihood(divergence, x, time_grid(STEPS), log_normal, "euler").log_density

        ratios = [cpu_ms(ours) / cpu_ms(theirs) for _ in range(3)]
        gap = (ours() - theirs().detach()).abs().max().item()
        print(f"d={d}: {cpu_ms(ours):.0f} ms, ratios to flow_matching {[round(r, 2) for r in ratios]}, gap {gap:.1e}")
    mean, std = 0.7, 0.3
    x = mean + std * torch.randn(ROWS, 64, dtype=torch.float64)
    exact = (-0.5 * ((x - mean) / std) ** 2 - math.log(std) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def velocity(x, t):
        square = t**2 * std**2 + (1 - t) ** 2
        return mean + (t * std**2 - (1 - t)) / square * (x - mean * t)

    times = time_grid(200, dtype=torch.float64)
    result = log_likelihood(exact_divergence(velocity, 64), x, times, log_normal, "rk4").log_density
    print(f"closed form, 64 columns: largest error {(result - exact).abs().max().item():.1e}")


if __name__ == "__main__":
    main()
