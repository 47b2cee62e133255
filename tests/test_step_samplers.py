"""Which jumps (t, d) a flow map is trained on."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
import torch

from flowmatch.flow import (
    STEP_SAMPLERS,
    BetaSteps,
    DyadicSteps,
    FixedSteps,
    LogitNormalSteps,
    StepSampler,
    UniformSteps,
)

SAMPLERS = [
    *[sampler() for sampler in STEP_SAMPLERS.values()],
    BetaSteps(0.3, 2.0),
    BetaSteps(5.0, 0.5),
    FixedSteps(3),
    FixedSteps(8, 0.5),
    FixedSteps(1, 0.9),
    DyadicSteps(1),
    LogitNormalSteps(-2.0, 3.0),
]
EVERY_SAMPLER = pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)


def draw(sampler, n_samples=20_000, seed=0, dtype=torch.float64):
    return sampler.draw(n_samples, torch.Generator().manual_seed(seed), dtype=dtype)


# -- what holds for all -------------------------------------------------------------------------------------------


@EVERY_SAMPLER
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_jumps_stay_inside_the_unit_interval(sampler, dtype):
    t, step = draw(sampler, 200_000, dtype=dtype)
    assert t.shape == step.shape == (200_000,)
    assert t.dtype == step.dtype == dtype
    assert (t >= 0).all()
    assert (step > 0).all()
    assert (t + step).max() <= 1 + 2 * torch.finfo(dtype).eps
    sampler.check()


@EVERY_SAMPLER
def test_draws_follow_the_generator_and_leave_the_global_one_alone(sampler):
    if sampler == FixedSteps():
        assert draw(sampler)[0].max() == 0  # one jump only
        return
    state = torch.get_rng_state()
    first, again, other = draw(sampler), draw(sampler), draw(sampler, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    assert torch.equal(torch.get_rng_state(), state)


@EVERY_SAMPLER
def test_draws_stay_on_the_device(sampler):
    for values in (*sampler.draw(8, None, "meta", torch.float32), sampler.draw_steps(8, None, "meta")):
        assert values.device == torch.device("meta")
        assert values.shape == (8,)


@EVERY_SAMPLER
def test_an_empty_draw_is_empty(sampler):
    assert [values.shape for values in sampler.draw(0)] == [(0,), (0,)]


@pytest.mark.parametrize("sampler", [UniformSteps(), BetaSteps(2.0, 3.0), FixedSteps(4, 0.5)], ids=repr)
def test_times_are_uniform_on_what_the_increment_leaves(sampler):
    t, step = draw(sampler)
    share = (t / (1 - step)).numpy()
    assert scipy.stats.kstest(share, scipy.stats.uniform().cdf).pvalue > 0.01
    assert abs(np.corrcoef(share, step.numpy())[0, 1]) < 0.03


# -- laws ---------------------------------------------------------------------------------------------------------


def test_uniform_steps_are_uniform():
    _, step = draw(UniformSteps())
    assert scipy.stats.kstest(step.numpy(), scipy.stats.uniform().cdf).pvalue > 0.01


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.0, 1.5), (2.0, 5.0), (0.5, 0.5), (0.3, 2.0), (8.0, 1.0)])
def test_beta_steps_have_the_quantiles_and_moments_of_the_beta_law(a, b):
    law, step = scipy.stats.beta(a, b), draw(BetaSteps(a, b), 100_000)[1].numpy()
    assert step.mean() == pytest.approx(law.mean(), abs=4 * law.std() / 100_000**0.5)
    assert step.std() == pytest.approx(law.std(), rel=0.02)
    ranks = np.array([0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
    reached = law.cdf(np.quantile(step, ranks))
    np.testing.assert_allclose(reached, ranks, atol=4 * np.sqrt(ranks * (1 - ranks) / 100_000).max())
    assert scipy.stats.kstest(step, law.cdf).pvalue > 0.01


@pytest.mark.parametrize("n_steps", [1, 3, 8])
def test_fixed_steps_are_those_of_sampling_equally_often(n_steps):
    t, step = draw(FixedSteps(n_steps))
    assert torch.equal(step, torch.full_like(step, 1 / n_steps))
    place = t * n_steps
    torch.testing.assert_close(place, place.round(), rtol=0, atol=1e-12)
    shares = np.bincount(place.round().int().numpy()) / len(t)
    assert len(shares) == n_steps
    np.testing.assert_allclose(shares, 1 / n_steps, atol=4 * (1 / n_steps / len(t)) ** 0.5)


@pytest.mark.parametrize(("n_steps", "jitter"), [(4, 0.5), (8, 0.1)])
def test_jitter_spreads_fixed_steps_evenly_around_their_length(n_steps, jitter):
    t, step = draw(FixedSteps(n_steps, jitter))
    law = scipy.stats.uniform((1 - jitter) / n_steps, 2 * jitter / n_steps)
    assert scipy.stats.kstest(step.numpy(), law.cdf).pvalue > 0.01
    place = t * n_steps
    assert (place - place.round()).abs().mean() > 0.1


def test_jitter_of_a_single_step_is_cut_at_the_whole_interval():
    _, step = draw(FixedSteps(1, 0.5))
    assert (step == 1).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert step.min().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("n_halvings", [1, 3, 5])
def test_dyadic_steps_are_halvings_equally_often_on_grids_of_their_own(n_halvings):
    t, step = draw(DyadicSteps(n_halvings), 50_000)
    halvings = -step.log2()
    assert torch.equal(halvings, halvings.round())
    counts = np.bincount(halvings.int().numpy())
    assert len(counts) == n_halvings + 1
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    place = t / step
    assert torch.equal(place, place.round())
    for j in range(n_halvings + 1):
        inside = np.bincount(place[halvings == j].int().numpy(), minlength=2**j)
        assert len(inside) == 2**j
        assert j == 0 or scipy.stats.chisquare(inside).pvalue > 0.01


@pytest.mark.parametrize(("mean", "std"), [(0.4, 1.0), (-1.0, 0.5)])
def test_logit_normal_steps_join_the_sorted_pair_of_times(mean, std):
    t, step = draw(LogitNormalSteps(mean, std))
    ends = torch.stack([t, t + step])
    normal = scipy.stats.norm(mean, std)
    for values, power in ((ends[0], lambda p: 1 - (1 - p) ** 2), (ends[1], lambda p: p**2)):
        law = lambda z, power=power: power(normal.cdf(z))  # noqa: E731
        assert scipy.stats.kstest(values.logit().numpy(), law).pvalue > 0.01
    assert torch.equal(LogitNormalSteps(mean, std).draw_steps(9, torch.Generator().manual_seed(0)), draw(
        LogitNormalSteps(mean, std), 9, dtype=torch.float32)[1])  # fmt: skip


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (BetaSteps(0.0, 1.0), "a must"),
        (BetaSteps(1.0, -1.0), "b must"),
        (BetaSteps(1.0, float("nan")), "b must"),
        (FixedSteps(0), "n_steps must"),
        (FixedSteps(2.5), "n_steps must"),
        (FixedSteps(2, 1.0), "jitter must"),
        (FixedSteps(2, -0.1), "jitter must"),
        (DyadicSteps(0), "n_halvings must"),
        (DyadicSteps(True), "n_halvings must"),
        (LogitNormalSteps(float("inf")), "mean must"),
        (LogitNormalSteps(0.0, 0.0), "std must"),
    ],
    ids=repr,
)
def test_bad_parameters_are_named(bad, named):
    with pytest.raises(ValueError, match=named):
        bad.validate()


@dataclasses.dataclass(frozen=True)
class OwnSteps(StepSampler):
    """A user's sampler: increments that are handed in, and times if there are any."""

    step: object
    t: object = None

    def draw_steps(self, n_samples, generator=None, device=None, dtype=None):
        return self.step(n_samples).to(dtype)

    def draw(self, n_samples, generator=None, device=None, dtype=None):
        if self.t is None:
            return super().draw(n_samples, generator, device, dtype)
        return self.t(n_samples).to(dtype), self.draw_steps(n_samples, generator, device, dtype)


def of(value):
    return lambda n_samples: torch.full((n_samples,), value)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (OwnSteps(of(0.5), of(0.6)), r"OwnSteps drew jumps with .*t \+ d up to 1.1; expected .*t \+ d <= 1"),
        (OwnSteps(of(0.5), of(-0.1)), "t down to -0.1"),
        (OwnSteps(of(0.0)), "d down to 0,"),
        (OwnSteps(of(-0.2)), "d down to -0.2"),
        (OwnSteps(of(float("nan"))), "d down to nan"),
        (OwnSteps(lambda n: torch.ones(n, 1), of(0.0)), r"drew d of shape \(1000, 1\) for 1000 samples"),
        (OwnSteps(of(0.5), lambda n: torch.zeros(n - 1)), r"drew t of shape \(999,\)"),
    ],
    ids=["past 1", "before 0", "no length", "backwards", "nan", "shape of d", "shape of t"],
)
def test_a_users_sampler_that_leaves_the_interval_or_the_shape_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        own.check()


def test_a_users_sampler_needs_increments_only():
    own = OwnSteps(of(0.25))
    own.check()
    t, step = draw(own)
    assert (step == 0.25).all()
    assert t.max().item() == pytest.approx(0.75, abs=0.001)
