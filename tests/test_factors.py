"""The normal law of a table's codes: what it makes of cells that are given."""

import tracemalloc

import numpy as np
import pytest
import torch

from flowmatch.preprocessing import FactorModel


def a_model(d, r, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, loadings = torch.randn(d, generator=generator), torch.randn(d, r, generator=generator)
    return FactorModel(mean, loadings, 0.1 + torch.rand(d, generator=generator))


def test_guesses_are_the_conditional_normal_law():
    model = a_model(6, 3)
    covariance = (model.loadings @ model.loadings.T + model.noise.diag()).double()
    generator = torch.Generator().manual_seed(1)
    codes, given = torch.randn(40, 6, generator=generator), torch.randint(2, (40, 6), generator=generator)
    given[0], given[1] = 0, 1
    mean, log_scale = model.guess(torch.where(given > 0, codes, torch.nan), given.float())
    assert (mean[0] == 0).all()  # standard noise where nothing is known
    assert (log_scale[0] == 0).all()
    for row in range(2, 40):
        seen, hidden = given[row] > 0, given[row] == 0
        if not seen.any():
            continue
        slope = torch.linalg.solve(covariance[seen][:, seen], covariance[seen][:, hidden])
        expected = model.mean[hidden] + (codes[row, seen] - model.mean[seen]).double() @ slope
        variance = (covariance[hidden][:, hidden] - covariance[hidden][:, seen] @ slope).diagonal()
        torch.testing.assert_close(mean[row, hidden].double(), expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(log_scale[row, hidden].double(), 0.5 * variance.log(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("missing", "tolerance"), [(0.0, 0.02), (0.4, 0.08)])
def test_the_fit_finds_means_and_covariances(missing, tolerance):
    """Also with missing codes, where filling them with means would shrink all covariances."""
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8, -0.3], [0.8, 2.0, 0.0], [-0.3, 0.0, 0.5]])
    X = rng.multivariate_normal([1.0, 0.0, -2.0], covariance, size=1500)
    expected = np.cov(X.T) if missing == 0 else covariance
    X[rng.random(X.shape) < missing] = np.nan
    model = FactorModel.fit(X)
    np.testing.assert_allclose(model.mean, np.nanmean(X, axis=0), rtol=1e-5)
    found = model.loadings @ model.loadings.T + model.noise.diag()
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_more_codes_than_factors_keep_their_variances():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(800, 2)) @ rng.normal(size=(2, 50)) + 0.3 * rng.normal(size=(800, 50))
    model = FactorModel.fit(X)
    assert model.loadings.shape == (50, 32)
    found = model.loadings @ model.loadings.T + model.noise.diag()
    np.testing.assert_allclose(found.diagonal(), X.var(axis=0), rtol=0.02)
    np.testing.assert_allclose(found, np.cov(X.T), atol=0.1)


def test_wide_tables_have_their_leading_directions_without_all_covariances():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(2, 4000))
    X = rng.normal(size=(500, 2)) @ directions + 0.3 * rng.normal(size=(500, 4000))
    tracemalloc.start()
    try:
        model = FactorModel.fit(X)
        assert tracemalloc.get_traced_memory()[1] < 8 * X.shape[1] ** 2  # bytes of the covariance of all pairs
    finally:
        tracemalloc.stop()
    codes = torch.from_numpy(rng.normal(size=(20, 2)) @ directions).float()
    mean, log_scale = model.guess(codes, torch.tensor([1.0] * 40 + [0.0] * 3960).expand(20, -1))
    assert (mean[:, 40:] - codes[:, 40:]).std() < 0.3
    assert log_scale[:, 40:].exp().mean() == pytest.approx(0.75, abs=0.1)  # a quarter of the rows is shrinkage
    assert FactorModel.fit(X[:5]).loadings.shape == (4000, 5)


def test_a_code_without_a_spread_is_no_trouble():
    X = np.array([[1.0, np.nan], [1.0, 2.0], [1.0, 3.0], [1.0, np.nan]])
    model = FactorModel.fit(X)
    mean, log_scale = model.guess(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 0.0]]))
    assert torch.isfinite(mean).all()
    assert torch.isfinite(log_scale).all()
