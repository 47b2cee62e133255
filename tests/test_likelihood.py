import pytest
import torch
from closed_forms import GaussianFlow, normal_log_density

from flowmatch.flow import exact_divergence, hutchinson_divergence, log_likelihood, rademacher_probes, time_grid
from flowmatch.networks import MLP

FLOW = GaussianFlow(mean=0.7, std=0.3)


def data(*shape):
    noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return FLOW.mean + FLOW.std * noise


@pytest.mark.parametrize("shape", [(1,), (64,), (2, 5), (1, 3, 3), (1, 2, 2, 2)])
def test_exact_likelihood_equals_the_closed_form_for_any_shape(shape):
    x1 = data(5, *shape)
    size = x1[0].numel()
    result = log_likelihood(
        exact_divergence(FLOW.velocity, size), x1, time_grid(200, dtype=torch.float64), normal_log_density, "rk4"
    )
    torch.testing.assert_close(result.log_density, FLOW.log_density(x1), rtol=0, atol=1e-6)
    torch.testing.assert_close(result.x0, (x1 - FLOW.mean) / FLOW.std, rtol=0, atol=1e-6)


def random_network(size, scale=0.5):
    network = MLP(width=16, depth=2)((size,), 0).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype) / max(1, p.shape[-1]) ** 0.5)
    return lambda x, t: network(x, t.expand(len(x)))


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5])
def test_exact_divergence_is_the_trace_of_the_jacobian(chunk_size):
    velocity, x, t = random_network(5), data(4, 5), torch.tensor(0.4, dtype=torch.float64)
    _, divergence = exact_divergence(velocity, 5, chunk_size)(x, t)
    traces = [torch.autograd.functional.jacobian(lambda row: velocity(row[None], t)[0], row).trace() for row in x]
    torch.testing.assert_close(divergence[:, 0], torch.stack(traces))


def test_hutchinson_averages_to_the_trace_over_all_sign_vectors():
    velocity, x, t = random_network(3), data(4, 3), torch.tensor(0.4, dtype=torch.float64)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    _, estimates = hutchinson_divergence(velocity, signs)(x, t)
    _, exact = exact_divergence(velocity, 3)(x, t)
    torch.testing.assert_close(estimates.mean(1, keepdim=True), exact)


def test_hutchinson_errors_are_of_the_size_of_their_standard_error():
    velocity, x1 = random_network(12, 0.8), data(60, 12)
    times = time_grid(10, dtype=torch.float64)
    exact = log_likelihood(exact_divergence(velocity, 12), x1, times, normal_log_density).log_density
    ratios = []
    for seed in range(20):
        probes = rademacher_probes(24, x1[0], torch.Generator().manual_seed(seed))
        estimate = log_likelihood(
            hutchinson_divergence(velocity, probes), x1, times, normal_log_density, n_estimates=24
        )
        ratios.append((estimate.log_density - exact) / estimate.standard_error)
    assert torch.cat(ratios).square().mean().sqrt().item() == pytest.approx(1.0, abs=0.35)


def test_one_probe_tells_no_standard_error():
    probes = rademacher_probes(1, data(1, 3)[0])
    result = log_likelihood(
        hutchinson_divergence(FLOW.velocity, probes), data(4, 3), time_grid(5, dtype=torch.float64), normal_log_density
    )
    assert result.standard_error.isnan().all()
