import math

import pytest
import scipy.stats
import torch
from closed_forms import GaussianFlow, normal_log_density

from flowmatch.flow import (
    MatchedSource,
    NormalSource,
    SparseSource,
    divergence_probes,
    exact_divergence,
    hutchinson_divergence,
    log_likelihood,
    log_likelihood_terms,
    rademacher_probes,
    time_grid,
)
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


# -- number by number ---------------------------------------------------------------------------------------------


def normal_terms(x0):
    return NormalSource().log_density_terms(x0, torch.ones_like(x0[0]))


@pytest.mark.parametrize("n_probes", [None, 3])
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_terms_add_up_to_the_log_likelihood_exact_or_estimated(n_probes, shape):
    table, x1 = random_network(math.prod(shape)), data(4, *shape)
    times = time_grid(8, dtype=torch.float64)

    def velocity(x, t):
        return table(x.flatten(1), t).reshape(x.shape)

    probes = None if n_probes is None else rademacher_probes(n_probes, x1[0], torch.Generator().manual_seed(0))
    exact = exact_divergence(velocity, math.prod(shape))
    divergence = exact if probes is None else hutchinson_divergence(velocity, probes)
    expected = log_likelihood(divergence, x1, times, normal_log_density, "heun", n_estimates=n_probes or 1)
    terms = log_likelihood_terms(velocity, x1, times, normal_terms, probes, "heun")
    assert terms.shape == x1.shape
    torch.testing.assert_close(terms.flatten(1).sum(1), expected.log_density, rtol=1e-12, atol=1e-12)


MIXING = torch.tensor([[0.5, 1.0, 0.0], [-1.0, 0.2, 0.3], [0.4, 0.0, -0.7]], dtype=torch.float64)


def test_a_numbers_term_holds_its_own_entry_of_the_jacobians_diagonal():
    """Under ``v = A x`` the noise is ``exp(-A) z``, and each term loses one entry of A's diagonal."""
    x1 = data(4, 3)
    expected = normal_terms(x1 @ torch.linalg.matrix_exp(-MIXING).T) - MIXING.diagonal()
    all_signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    for probes in (None, all_signs):
        terms = log_likelihood_terms(
            lambda x, t: x @ MIXING.T, x1, time_grid(40, dtype=torch.float64), normal_terms, probes, "rk4"
        )
        torch.testing.assert_close(terms, expected, rtol=0, atol=1e-7)


def test_the_trace_is_exact_up_to_64_numbers_and_estimated_beyond():
    assert divergence_probes(torch.ones(64)) is None
    assert divergence_probes(torch.ones(2, 32)) is None
    assert divergence_probes(torch.ones(5, 13)).shape == (32, 5, 13)
    assert divergence_probes(torch.ones(3), 7).shape == (7, 3)


def test_probes_are_signs_that_are_the_same_at_every_call():
    like = torch.ones(5, 13, dtype=torch.float64)
    probes = divergence_probes(like, 50)
    torch.manual_seed(3)
    assert torch.equal(probes, divergence_probes(like, 50))
    assert probes.dtype == torch.float64
    assert set(probes.unique().tolist()) == {-1.0, 1.0}
    assert probes.mean().abs() < 5 / probes.numel() ** 0.5


@pytest.mark.parametrize("source", [NormalSource(), MatchedSource()], ids=["normal", "matched"])
def test_a_sources_terms_are_the_densities_of_its_numbers_and_add_up_to_its_density(source):
    scale = source.fit_scale(data(50, 2, 3) * torch.tensor([0.1, 1.0, 20.0], dtype=torch.float64))
    x0 = source.draw(4, scale, torch.Generator().manual_seed(0))
    terms = source.log_density_terms(x0, scale)
    expected = scipy.stats.norm(scale=scale.numpy()).logpdf(x0.numpy())
    torch.testing.assert_close(terms, torch.as_tensor(expected), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(source.log_density(x0, scale), terms.sum((1, 2)), rtol=1e-12, atol=1e-12)


def test_a_source_with_atoms_has_no_density_terms():
    with pytest.raises(ValueError, match="source='sparse' has atoms at 0"):
        SparseSource().log_density_terms(torch.zeros(2, 3), torch.ones(3))
