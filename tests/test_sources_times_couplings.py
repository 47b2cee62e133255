import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment

from flowmatch.flow import (
    COUPLINGS,
    SOURCES,
    TIME_SAMPLERS,
    MatchedSource,
    NormalSource,
    OptimalTransportCoupling,
    SparseSource,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


LAWS = {
    "uniform": scipy.stats.uniform(),
    "stratified": scipy.stats.uniform(),
    "u_shaped": scipy.stats.beta(0.5, 0.5),
    "data_emphasis": scipy.stats.beta(1, 0.5),
    "noise_emphasis": scipy.stats.beta(0.5, 1),
}


@pytest.mark.parametrize("name", TIME_SAMPLERS)
def test_times_follow_their_law(name):
    t = TIME_SAMPLERS[name]().draw(5000, generator()).double().numpy()
    if name == "logit_normal":
        t, law = np.log(t / (1 - t)), scipy.stats.norm()
    else:
        law = LAWS[name]
    assert scipy.stats.kstest(t, law.cdf).pvalue > 0.01


def test_stratified_times_fill_every_bin_once():
    t = TIME_SAMPLERS["stratified"]().draw(64, generator())
    assert sorted((t * 64).floor().tolist()) == list(range(64))
    assert t.tolist() != sorted(t.tolist())


@pytest.mark.parametrize("name", SOURCES)
def test_sources_keep_shape_dtype_and_seed(name):
    source, x1 = SOURCES[name](), torch.randn(50, 2, 3, dtype=torch.float64)
    scale = source.fit_scale(x1)
    noise = source.draw(4, scale, generator())
    assert noise.shape == (4, 2, 3)
    assert noise.dtype == torch.float64
    assert torch.equal(noise, source.draw(4, scale, generator()))
    assert not torch.equal(noise, source.draw(4, scale, generator(1)))


def test_matched_source_has_the_datas_scale_and_a_density_that_integrates_to_one():
    source, x1 = MatchedSource(), torch.randn(4000, 2, generator=generator()) * torch.tensor([5.0, 0.0])
    scale = source.fit_scale(x1)
    assert scale[1] == 1  # a constant feature
    noise = source.draw(20_000, scale, generator(2))
    torch.testing.assert_close(noise.std(0), torch.tensor([5.0, 1.0]), rtol=0.05, atol=0)
    grid = torch.linspace(-40, 40, 2001, dtype=torch.float64)
    density = source.log_density(grid[:, None], scale[:1].double()).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-6)


def test_normal_source_density_is_scipys():
    x = torch.randn(6, 2, 2, dtype=torch.float64)
    expected = scipy.stats.norm.logpdf(x.numpy()).sum((1, 2))
    np.testing.assert_allclose(NormalSource().log_density(x, torch.ones(2, 2)), expected)


def test_sparse_source_drops_its_share_and_refuses_a_density():
    noise = SparseSource(0.3).draw(2000, torch.ones(10), generator())
    assert (noise == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    with pytest.raises(ValueError, match="no density"):
        SparseSource().log_density(noise, torch.ones(10))


def transport_cost(x0, x1):
    return (x0 - x1).square().sum(1).sum().item()


def test_optimal_transport_finds_the_best_of_all_permutations():
    x0, x1 = torch.randn(6, 2, generator=generator()), torch.randn(6, 2, generator=generator(1))
    best = min(transport_cost(x0[list(p)], x1) for p in itertools.permutations(range(6)))
    assert transport_cost(OptimalTransportCoupling().pair(x0, x1), x1) == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("size", [100, 128, 200])
@pytest.mark.parametrize("kind", ["normal", "far apart", "huge", "tiny", "ties", "all equal", "one outlier"])
def test_large_blocks_are_assigned_as_well_as_without_the_shortcut(size, kind):
    x0, x1 = (torch.randn(size, 3, generator=generator(seed), dtype=torch.float64) for seed in (0, 1))
    x1 = {
        "normal": x1, "far apart": x1 + 100, "huge": x1 * 1e8, "tiny": x1 * 1e-8, "ties": x1.round(),
        "all equal": 0 * x1 + 1, "one outlier": torch.cat([x1[1:], x1[:1] + 1e6]),
    }[kind]  # fmt: skip
    best = linear_sum_assignment((-x1 @ x0.T).numpy())[1]
    paired = OptimalTransportCoupling(block_size=size).pair(x0, x1)
    assert sorted(paired.tolist()) == sorted(x0.tolist())
    assert transport_cost(paired, x1) == pytest.approx(transport_cost(x0[best], x1), rel=1e-12)


@pytest.mark.parametrize("name", COUPLINGS)
@pytest.mark.parametrize("groups", [None, torch.arange(70) % 3])
def test_couplings_use_every_noise_exactly_once(name, groups):
    x0, x1 = torch.randn(70, 2, 2, generator=generator()), torch.randn(70, 2, 2, generator=generator(1))
    paired = COUPLINGS[name]().pair(x0, x1, groups)
    assert sorted(paired.flatten(1).tolist()) == sorted(x0.flatten(1).tolist())


def test_optimal_transport_never_pairs_across_groups():
    """The noise that a group was given stays in it, so that conditions do not bias their flows."""
    x0, x1 = torch.randn(90, 2, generator=generator()), torch.randn(90, 2, generator=generator(1))
    groups = torch.randint(0, 4, (90,), generator=generator(2))
    paired = OptimalTransportCoupling(block_size=8).pair(x0, x1, groups)
    for group in range(4):
        assert sorted(paired[groups == group].tolist()) == sorted(x0[groups == group].tolist())
    assert transport_cost(paired, x1) < 0.7 * transport_cost(x0, x1)


def test_blocks_assign_only_inside_themselves():
    x0, x1 = torch.randn(10, 2, generator=generator()), torch.randn(10, 2, generator=generator(1))
    paired = OptimalTransportCoupling(block_size=4).pair(x0, x1)
    for block in (slice(0, 4), slice(4, 8), slice(8, 10)):
        assert sorted(paired[block].tolist()) == sorted(x0[block].tolist())
