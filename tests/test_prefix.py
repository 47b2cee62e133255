"""The first rows of a larger sample are the smaller sample of the same seed, whatever is drawn."""

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import MLP, DistilledFlowMap, FlowMatchingGenerator
from flowmatch.core.batches import noise_blocks, rows_per_tile
from flowmatch.flow import FIXED_STEP, NormalSource
from flowmatch.model import CodeSampler, Integration
from flowmatch.model.rejection import Places
from flowmatch.networks import UNet
from flowmatch.preprocessing import MissingPatterns, spread_sample

RNG = np.random.default_rng(0)
N = 80
LABELS = np.where(RNG.random(N) < 0.3, "rare", "usual")
NUMBERS = RNG.normal(size=(N, 3)) + (LABELS == "rare")[:, None]
TABLE = pd.DataFrame(
    {
        "size": NUMBERS[:, 0],
        "count": RNG.integers(0, 9, N),
        "kind": RNG.choice(["a", "b", "c"], N),
        "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(RNG.integers(0, 90, N), unit="D"),
    }
)
HOLES = TABLE.mask(RNG.random(TABLE.shape) < 0.2)
IMAGES = RNG.normal(size=(12, 1, 8, 8))


@dataclass(frozen=True)
class OwnSource(NormalSource):
    """A user's source, which draws more random numbers than it returns."""

    def draw(self, n_samples, scale, generator=None):
        torch.rand(n_samples, generator=generator)
        return 0.5 * super().draw(n_samples, scale, generator) + torch.rand(1, generator=generator)


def small(**parameters):
    defaults = {
        "network": MLP(width=8),
        "max_iter": 15,
        "batch_size": 32,
        "n_steps": 3,
        "random_state": 0,
        "device": "cpu",
    }
    return FlowMatchingGenerator(**(defaults | parameters))


MODELS = {
    "array": lambda: small().fit(NUMBERS),
    "float32": lambda: small(masked_share=0.0).fit(NUMBERS.astype(np.float32)),
    "tensor": lambda: small().fit(torch.as_tensor(NUMBERS)),
    "table": lambda: small().fit(TABLE),
    "holes": lambda: small().fit(HOLES),
    "labels": lambda: small(guidance_scale=1.5).fit(HOLES, LABELS),
    "numbers": lambda: small().fit(TABLE, NUMBERS[:, 1]),
    "weighted": lambda: small().fit(TABLE, NUMBERS[:, :2], RNG.random(N)),
    "mixed": lambda: small().fit(HOLES, pd.DataFrame({"a": NUMBERS[:, 0], "b": LABELS})),
    "matched": lambda: small(source="matched", preprocessing="none").fit(NUMBERS),
    "sparse": lambda: small(source="sparse").fit(NUMBERS),
    "own_source": lambda: small(source=OwnSource()).fit(NUMBERS),
    "images": lambda: small(network=UNet(width=4, multipliers=(1,), attention_levels=0), max_iter=2).fit(IMAGES, [0, 1] * 6),
    "mean_flow": lambda: small(objective="mean_flow").fit(HOLES, LABELS),
    "student": lambda: DistilledFlowMap(model("labels"), max_iter=4, n_stages=1, random_state=0).fit(HOLES, LABELS),
}  # fmt: skip


@functools.cache
def model(name):
    return MODELS[name]()


def head(drawn, n):
    return drawn.head(n) if hasattr(drawn, "iloc") else drawn[:n]


def assert_same(first, second, exact=False):
    """Equal but for the rounding of float32, which differs with the number of rows that are computed together."""
    if hasattr(first, "iloc"):
        pd.testing.assert_frame_equal(first, second, **({} if not exact else {"check_exact": True}))
    else:
        tolerance = 0 if exact else 1e-4
        np.testing.assert_allclose(np.asarray(first), np.asarray(second), rtol=tolerance, atol=tolerance)


CALLS = [(name, {}) for name in MODELS] + [
    ("table", {"given": {"kind": "a"}}),
    ("holes", {"missing": "as_trained"}),
    ("holes", {"given": {"size": None}, "missing": "as_trained"}),
    ("labels", {"missing": "as_trained"}),
    ("labels", {"given": {"count": 4}, "missing": "as_trained"}),
    ("labels", {"given": {"count": (3, 8), "kind": {"a", "b"}}}),
    ("labels", {"given": {"count": (3, 8)}, "missing": "as_trained", "oversample": 2, "select": lambda X: np.arange(len(X)) % 3}),
    ("labels", {"y": "rare", "given": {"size": lambda size: size > 0}}),
    ("labels", {"oversample": 3}),
    ("mixed", {"missing": "as_trained", "given": {"day": ("2024-02-01", None)}}),
    ("numbers", {"given": {"size": 0.5}}),
    ("student", {"given": {"count": slice(4, None)}}),
    ("student", {"missing": "as_trained", "n_steps": 2}),
    *[("labels", {"solver": solver}) for solver in FIXED_STEP],
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"), CALLS, ids=lambda value: value if isinstance(value, str) else str(list(value))
)
def test_the_first_rows_of_a_larger_sample_are_the_smaller_one(name, options):
    many, of_many = model(name).sample(10, random_state=3, return_y=True, **options)
    few, of_few = model(name).sample(5, random_state=3, return_y=True, **options)
    assert_same(head(many, 5), few)
    if of_few is not None:
        np.testing.assert_array_equal(np.asarray(head(of_many, 5)), np.asarray(of_few))
    other = model(name).sample(10, random_state=4, **options)
    assert not np.array_equal(np.asarray(other), np.asarray(many))  # or nothing is drawn at all


@pytest.mark.parametrize("name", ["array", "holes", "labels", "images", "student"])
def test_rows_that_are_computed_alone_are_the_same_to_the_bit(name):
    many, few = (model(name).sample(n, random_state=3, batch_size=1) for n in (7, 3))
    assert_same(head(many, 3), few, exact=True)


def test_a_trajectory_begins_with_those_of_fewer_rows():
    many, few = (model("labels").sample(n, random_state=3, return_trajectory=True) for n in (9, 4))
    np.testing.assert_allclose(many[:, :4], few, rtol=1e-4, atol=1e-4)


def test_adaptive_solvers_agree_within_their_tolerance_and_row_by_row_to_the_bit():
    many, few = (model("array").sample(n, random_state=3, solver="dopri5") for n in (9, 4))
    np.testing.assert_allclose(many[:4], few, atol=1e-3)
    many, few = (model("array").sample(n, random_state=3, solver="dopri5", batch_size=1) for n in (9, 4))
    np.testing.assert_array_equal(many[:4], few)


def test_an_imputed_table_begins_with_that_of_its_first_rows():
    for name in ("holes", "student"):
        options = {} if name == "holes" else {"y": "rare"}
        whole, part = (model(name).impute(HOLES.head(n), random_state=3, **options) for n in (40, 12))
        pd.testing.assert_frame_equal(whole.head(12), part)


def test_blocks_and_tiles_end_without_a_seam():
    """Rows beyond a block of 16,384 and beyond a tile of 256 are as reproducible as the first ones."""
    quick = {"random_state": 3, "n_steps": 1, "solver": "euler"}
    many, of_many = model("labels").sample(17_000, return_y=True, given={"count": (1, 8)}, **quick)
    few, of_few = model("labels").sample(16_500, return_y=True, given={"count": (1, 8)}, **quick)
    assert len(noise_blocks(17_000, 5)) == 2
    same = (many.head(16_500) == few) | (many.head(16_500).isna() & few.isna())
    assert same["count"].mean() > 0.999  # rounding may tip a value at the border of two
    np.testing.assert_allclose(many["size"].head(16_500), few["size"], atol=1e-4)
    assert (of_many[:16_500] == of_few).mean() > 0.999
    starts = [0, 256, 16_384]
    tiles = [many["size"].iloc[start : start + 256].to_numpy() for start in starts]
    assert all((tiles[i] == tiles[j]).mean() < 0.1 for i, j in [(0, 1), (0, 2), (1, 2)])


def test_noise_belongs_to_a_row_and_its_candidate():
    sampler = CodeSampler(model("array").model_, Integration("euler", 1), 5)
    rows, tries = np.repeat(np.arange(600), 2), np.tile([0, 7], 600)
    noise = sampler.noise(Places(rows, tries))
    assert sampler.tile_size == rows_per_tile(3) == 256
    order = np.random.default_rng(0).permutation(len(rows))[:50]
    assert torch.equal(sampler.noise(Places(rows[order], tries[order])), noise[order])
    assert len(torch.unique(noise[:, 0])) == len(rows)  # no two have the same
    correlation = np.corrcoef(noise[::2].flatten(), noise[1::2].flatten())[0, 1]
    assert abs(correlation) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


# -- the sequence of conditions ------------------------------------------------------------------------------------------------


def farthest(shares, n, seed=0):
    """How far the count of any index in any first rows is off its share."""
    drawn = spread_sample(shares, n, np.random.RandomState(seed))
    counts = (drawn[:, None] == np.arange(len(shares))).cumsum(axis=0)
    return np.abs(counts - np.arange(1, n + 1)[:, None] * shares).max()


@pytest.mark.parametrize("k", [2, 3, 5, 10, 64, 100])
def test_any_first_rows_hold_equal_shares_to_within_one_and_a_half(k):
    assert max(farthest(np.full(k, 1 / k), 1000, seed) for seed in range(5)) < 1.5


@pytest.mark.parametrize("concentration", [0.05, 0.3, 1.0, 5.0])
def test_any_first_rows_hold_unequal_shares_to_within_four(concentration):
    rng = np.random.default_rng(1)
    worst = max(farthest(rng.dirichlet(np.full(rng.integers(2, 60), concentration)), 1000) for _ in range(20))
    assert 0.5 < worst < 4


def test_every_row_has_each_condition_with_exactly_its_share():
    shares, rng = np.array([0.62, 0.0, 0.08, 0.3]), np.random.RandomState(0)
    drawn = np.array([spread_sample(shares, 6, rng) for _ in range(6000)])
    for row in drawn.T:
        np.testing.assert_allclose(np.bincount(row, minlength=4) / len(drawn), shares, atol=0.025)


def test_the_order_has_no_period():
    drawn = spread_sample(np.array([0.5, 0.5]), 400, np.random.RandomState(0))
    assert all(0.3 < (drawn[lag:] == drawn[:-lag]).mean() < 0.7 for lag in range(1, 9))


def test_labels_of_any_sample_have_the_shares_of_training():
    drawn, y = model("labels").sample(60, random_state=0, return_y=True)
    share = (LABELS == "rare").mean()
    off = (y == "rare").cumsum() - share * np.arange(1, 61)
    assert np.abs(off).max() < 4


def test_numeric_conditions_of_any_sample_are_spread_over_their_range():
    known = np.sort(NUMBERS[:, 1])
    for n in (10, 33, 80):
        y = model("numbers").sample(n, random_state=1, return_y=True)[1]
        ranks = np.searchsorted(known, np.sort(y)) / N
        assert np.abs(ranks - (np.arange(n) + 0.5) / n).max() < 4 / n


def test_patterns_of_any_rows_have_the_shares_of_training_within_their_condition():
    missing = np.zeros((100, 2), dtype=bool)
    missing[:30, 0] = missing[60:70, 1] = True
    vectors = np.eye(2, dtype=np.float32)[(np.arange(100) >= 60).astype(int)]
    patterns, nothing = MissingPatterns.fit(missing, vectors, None), np.zeros(2, dtype=bool)
    wanted = np.tile(np.eye(2, dtype=np.float32), (200, 1))
    drawn = patterns.draw(400, wanted, nothing, np.random.RandomState(0))
    np.testing.assert_array_equal(patterns.draw(100, wanted[:100], nothing, np.random.RandomState(0)), drawn[:100])
    for first, column, share in ((0, 0, 0.5), (1, 1, 0.25)):
        off = drawn[first::2, column].cumsum() - share * np.arange(1, 201)
        assert np.abs(off).max() < 4
