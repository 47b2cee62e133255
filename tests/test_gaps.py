"""Columns with gaps: clusters stay apart in the codes, and what was never there is not drawn."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid

from flowmatch import FlowMatchingGenerator, load
from flowmatch.preprocessing import QuantileNormal


def clusters(centers, n=600, sd=0.5, seed=0):
    rng = np.random.default_rng(seed)
    centers = np.atleast_2d(np.asarray(centers, dtype=float).T).T
    return centers[rng.integers(len(centers), size=n)] + sd * rng.normal(size=(n, centers.shape[1]))


GAPPED = {
    "two": clusters([-3, 3]),
    "three": clusters([-9, 0, 20]),
    "zeros": np.where(np.arange(400) % 3 == 0, 0.0, 50 + np.random.default_rng(0).normal(size=400))[:, None],
    "many rows": clusters([-3, 3], n=6000),
    "tiny": 1e-200 * clusters([-3, 3]),
}
PLAIN = {
    "normal": np.random.default_rng(0).normal(size=(1000, 1)),
    "uniform": np.random.default_rng(0).uniform(size=(1000, 1)),
    "log-normal": np.exp(2 * np.random.default_rng(0).normal(size=(1000, 1))),
    "integers": np.random.default_rng(0).integers(0, 100, (300, 1)).astype(float),
    "levels": np.random.default_rng(0).choice([0.0, 1.0, 50.0], (300, 1)),
}


def codes_of(transform, ranks):
    ranks = torch.as_tensor(ranks)[:, None]
    return transform.draw_codes(ranks, ranks, None).numpy()


@pytest.mark.parametrize("kind", GAPPED)
def test_codes_of_clusters_lie_apart(kind):
    X = GAPPED[kind]
    transform = QuantileNormal().fit(X)
    codes = np.sort(codes_of(transform, (np.arange(2000) + 0.5) / 2000)[:, 0])
    wide = np.sort(np.diff(codes)[40:-40])
    n_gaps = 2 if kind == "three" else 1
    assert wide[-n_gaps] > 1
    assert wide[-n_gaps - 1] < 0.5
    assert codes.mean() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", PLAIN)
def test_columns_without_gaps_have_normal_codes(kind):
    X = PLAIN[kind]
    transform = QuantileNormal().fit(X)
    assert not transform.opened_.any()
    ranks = (np.arange(500) + 0.5) / 500
    np.testing.assert_allclose(codes_of(transform, ranks)[:, 0], stats.norm.ppf(ranks), rtol=1e-9)


@pytest.mark.parametrize("kind", GAPPED)
def test_gaps_stay_closed_on_request(kind):
    transform = QuantileNormal(open_gaps=False).fit(GAPPED[kind])
    assert not transform.opened_.any()
    ranks = (np.arange(500) + 0.5) / 500
    np.testing.assert_allclose(codes_of(transform, ranks)[:, 0], stats.norm.ppf(ranks), rtol=1e-9)


def test_open_gaps_is_true_or_false():
    with pytest.raises(ValueError, match="open_gaps"):
        QuantileNormal(open_gaps="some").fit(GAPPED["two"])


@pytest.mark.parametrize("trailing", [(), (3,)], ids=["rows", "signals"])
def test_codes_are_opened_on_the_device_and_in_the_dtype_of_the_ranks(trailing):
    transform = QuantileNormal().fit(np.column_stack([GAPPED["three"], PLAIN["normal"][:600]]))
    ranks = torch.full((5, 2, *trailing), 0.5, device="meta", dtype=torch.float32)
    codes = transform.draw_codes(ranks, ranks, None)
    assert (codes.device.type, codes.dtype, codes.shape) == ("meta", torch.float32, ranks.shape)


@pytest.mark.parametrize("kind", GAPPED)
def test_all_codes_come_back_on_one_side_of_a_gap(kind):
    X = GAPPED[kind]
    transform = QuantileNormal().fit(X)
    sides = np.flatnonzero(transform.opened_)
    restored = transform.restore(np.linspace(-8, 8, 20_001)[:, None])
    for left, right in zip(transform.values_[sides], transform.values_[sides + 1], strict=True):
        assert not ((restored > left) & (restored < right)).any()


@pytest.mark.parametrize("kind", GAPPED)
def test_shares_of_clusters_are_kept(kind):
    X = GAPPED[kind]
    transform = QuantileNormal().fit(X)
    side = transform.opened_.argmax()
    restored = transform.restore(codes_of(transform, (np.arange(20_000) + 0.5) / 20_000))
    border = transform.values_[side]
    assert np.mean(restored <= border) == pytest.approx(np.mean(border >= X), abs=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in GAPPED if kind != "tiny"])
def test_the_invertible_map_undoes_itself_and_knows_its_slope(kind):
    X = GAPPED[kind]
    transform = QuantileNormal().fit(X)
    grid = np.linspace(X.min() - 1, X.max() + 1, 4001)[:, None]
    codes = transform.transform(grid)
    assert (np.diff(codes[:, 0]) > 0).all()
    np.testing.assert_allclose(transform.inverse_transform(codes), grid, atol=1e-9)
    slopes = np.exp(transform.log_slope(grid))[:, 0]
    assert trapezoid(slopes, grid[:, 0]) == pytest.approx(codes[-1, 0] - codes[0, 0], rel=0.02)


def test_what_is_smeared_over_an_edge_does_not_pile_up_there():
    X = clusters([-3, 3])
    transform = QuantileNormal().fit(X)
    rng = np.random.default_rng(0)
    codes = codes_of(transform, rng.random(20_000)) + 0.2 * rng.normal(size=(20_000, 1))
    values, counts = np.unique(transform.restore(codes), return_counts=True)
    assert counts[1:-1].max() <= 20  # the ends of the column are another matter
    assert abs(np.mean(values < 0) - 0.5) < 0.05


def test_weights_count_as_repetition():
    X = np.round(clusters([-3, 3], n=100), 2)
    counts = np.random.default_rng(1).integers(1, 4, len(X))
    weighted = QuantileNormal().fit(X, counts / counts.mean())
    repeated = QuantileNormal().fit(np.repeat(X, counts, axis=0))
    np.testing.assert_allclose(weighted.opened_, repeated.opened_, rtol=1e-12)


def far_share(rows, centers, sd, limit=5.5):
    distances = np.sqrt(((rows[:, None] - np.asarray(centers)) ** 2).sum(-1)) / sd
    return np.mean(distances.min(axis=1) > limit)


def test_rows_between_clusters_are_hardly_drawn_and_hidden_entries_go_to_the_right_one():
    centers = [(-3.0, -10.0), (3.0, 10.0)]
    X = clusters(centers)
    model = FlowMatchingGenerator(max_iter=250, random_state=0).fit(X)
    assert far_share(model.sample(4000, random_state=1), centers, 0.5) < 0.003
    holes = X.copy()
    holes[::2, 0] = np.nan
    filled = model.impute(holes, random_state=0)
    assert np.mean(np.sign(filled[::2, 0]) != np.sign(X[::2, 1])) < 0.02


def test_files_keep_gaps(tmp_path):
    X = pd.DataFrame(clusters([-3, 3]), columns=["x"])
    model = FlowMatchingGenerator(max_iter=3, random_state=0).fit(X)
    model.save(tmp_path / "model.flow")
    loaded = load(tmp_path / "model.flow")
    pd.testing.assert_frame_equal(loaded.sample(200, random_state=0), model.sample(200, random_state=0))
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))


SLOWER = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("two", "zeros")]


@pytest.mark.parametrize("kind", ["three", *SLOWER])
def test_exported_programs_know_gaps(kind, tmp_path):
    X = np.column_stack([GAPPED[kind][:400, 0], np.random.default_rng(3).normal(size=len(GAPPED[kind][:400]))])
    model = FlowMatchingGenerator(max_iter=20, random_state=0).fit(X)
    model.export(tmp_path / "sampler.pt2")
    program = torch.export.load(tmp_path / "sampler.pt2").module()
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    drawn = np.asarray(program(noise))
    side = model.fitted_.model.encoder.transform.opened_.argmax()
    values = model.fitted_.model.encoder.transform.values_
    between = (drawn[:, 0] > values[side] + 1e-4) & (drawn[:, 0] < values[side + 1] - 1e-4)
    assert not between.any()
    assert 0.05 < np.mean(drawn[:, 0] <= values[side]) < 0.95
