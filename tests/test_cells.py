"""Cells of tables that are given, absent or missing: masks, codes of categories, patterns, and laws known exactly."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from flowmatch import FlowMatchingGenerator, preprocessing
from flowmatch.core.entries import BLOCKS, generated, start_from, with_entries, without_labels
from flowmatch.fitting.training_data import EntryMasks, RowData
from flowmatch.flow import (
    CosinePath,
    IndependentCoupling,
    LinearPath,
    NormalSource,
    OptimalTransportCoupling,
    UniformTimes,
    VariancePreservingPath,
    guided_velocity,
)
from flowmatch.networks import MLP, MaskedNetwork
from flowmatch.objectives import VelocityObjective
from flowmatch.preprocessing import (
    CategoryCodes,
    Conditions,
    FactorModel,
    Log1pStandardize,
    MinMax,
    MissingPatterns,
    QuantileNormal,
    SampleEncoder,
    Standardize,
    TableContainer,
)
from flowmatch.preprocessing.categories import NOISE, points_of

CELLS = 3 * BLOCKS
CPU = torch.device("cpu")
PATHS = pytest.mark.parametrize("path", [LinearPath(), VariancePreservingPath(), CosinePath()], ids=repr)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=seeded(seed))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def masks(share, groups):
    """Masks of codes that tell nothing of each other, so that all noise is standard."""
    d = len(groups)
    return EntryMasks(share, groups, FactorModel(torch.zeros(d), torch.zeros(d, 1), torch.ones(d)))


def some_masks(n_rows, n_codes, seed=3):
    """Masks of given and of absent codes, every combination among them."""
    drawn = torch.randint(3, (n_rows, n_codes), generator=seeded(seed))
    return (drawn == 1).float(), (drawn == 2).float()


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        inner = MLP(width=8, depth=1)((3,), 2 + CELLS, False)
        for parameter in inner.parameters():
            nn.init.normal_(parameter, std=0.3)
    return MaskedNetwork(inner, 3, 2)


def objective(d=3, path=None, coupling=None, **more):
    return VelocityObjective(
        path or LinearPath(), NormalSource(), coupling or IndependentCoupling(), UniformTimes(), torch.ones(d), **more
    )


# -- the network --------------------------------------------------------------------------------------------------------


def test_hidden_cells_neither_enter_nor_leave_the_network(network):
    x, t, labels = normal(40, 3), uniform(40), normal(40, 2, seed=1)
    given, absent = some_masks(40, 3)
    condition = with_entries(labels, normal(40, 3, seed=2), given, absent)
    velocity, shown = network(x, t, condition), generated(condition, 3)
    assert (velocity[shown == 0] == 0).all()
    assert (velocity[shown == 1] != 0).all()
    torch.testing.assert_close(network(x + 5 * (1 - shown), t, condition), velocity, rtol=0, atol=0)
    other = with_entries(labels, normal(40, 3, seed=9), given, absent)
    moved = (network(x, t, other) != velocity).any(1)
    assert (moved == ((given * shown.any(1, keepdim=True)) > 0).any(1)).all()  # what is given counts, and only that


def test_a_call_without_cells_generates_whole_rows(network):
    x, t, labels = normal(5, 3), uniform(5), normal(5, 2, seed=1)
    none = torch.zeros(5, 3)
    torch.testing.assert_close(network(x, t, labels), network(x, t, with_entries(labels, x, none, none)))
    torch.testing.assert_close(network(x, t), network(x, t, with_entries(0 * labels, x, none, none)))
    assert not torch.equal(network(x, t), network(x, t, labels))
    with pytest.raises(
        ValueError, match=f"conditions of 2 elements, and {CELLS} that describe the row.s entries, but got 5"
    ):
        network(x, t, torch.zeros(5, 5))


def test_codes_that_are_not_given_may_be_anything():
    given, absent = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0, 1.0]])
    cells = with_entries(None, torch.tensor([[0.5, torch.nan, torch.inf]]), given, absent)
    assert cells.tolist() == [[0.5, 0, 0, 1, 0, 0, 0, 0, 1] + [0] * (CELLS - 9)]
    assert generated(cells, 3).tolist() == [[0, 1, 0]]
    assert without_labels(torch.ones(1, 5), 3).tolist() == [[0, 0, 1, 1, 1]]
    assert without_labels(torch.ones(1, 5), 0).tolist() == [[0] * 5]


def test_noise_starts_where_the_cells_say():
    given, absent = some_masks(40, 3)
    mean, log_scale, noise = (normal(40, 3, seed=seed) for seed in (1, 2, 3))
    shown = 1 - given - absent
    moved = start_from(noise, with_entries(normal(40, 2), noise, given, absent, (mean, log_scale)))
    torch.testing.assert_close(moved, shown * (mean + log_scale.exp() * noise))
    torch.testing.assert_close(start_from(noise, with_entries(None, noise, given, absent)), shown * noise)


# -- training -----------------------------------------------------------------------------------------------------------


@PATHS
def test_hidden_cells_add_nothing_to_the_loss(path, network):
    residuals = []

    def loss(residual, t):
        residuals.append(residual)
        return residual.square().mean(1)

    given, absent = some_masks(60, 3)
    condition = with_entries(normal(60, 2), normal(60, 3), given, absent)
    shown = generated(condition, 3)
    problem = objective(path=path, loss=loss, is_masked=True)
    x0, x1 = problem.draw_pairs(shown * normal(60, 3), condition, seeded())
    assert (x0[shown == 0] == 0).all()
    assert (x0[shown == 1] != 0).all()
    problem.residual_loss(network, x0, x1, problem.draw_times(60, seeded()), condition)
    assert (residuals[0][shown == 0] == 0).all()
    assert (residuals[0][shown == 1] != 0).all()


class FixedMasks(EntryMasks):
    def draw(self, codes, generator):
        given, absent = some_masks(*codes.shape)
        return given * ~codes.isnan(), torch.maximum(absent, codes.isnan().float())


def test_what_stands_in_absent_cells_tells_training_nothing(network):
    gradients = []
    for filler in (0.3, -7.0):
        codes = torch.where(some_masks(50, 3)[1] > 0, filler, normal(50, 3))
        stored = preprocessing.TrainingCodes(preprocessing.Identity(), codes, None)
        labels = Conditions(normal(50, 2))
        rows = RowData(stored, labels, None, FixedMasks(0.5, torch.arange(3), masks(0.5, torch.arange(3)).factors))
        network.zero_grad()
        rows.loss_of(objective(is_masked=True))(network, torch.arange(50), seeded()).mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_missing_cells_are_absent_and_zero_in_every_batch():
    codes = normal(300, 3)
    codes[uniform(300, 3) < 0.3] = torch.nan
    stored = preprocessing.TrainingCodes(preprocessing.Identity(), codes, None)
    rows = RowData(stored, None, None, masks(0.5, torch.arange(3)))
    drawn, condition = rows.draw(torch.arange(300), seeded())
    shown = generated(condition, 3)
    assert (shown[codes.isnan()] == 0).all()
    torch.testing.assert_close(drawn, torch.where(shown > 0, codes, 0.0))
    values, given, absent, *_ = condition.split(3, dim=1)
    assert (absent[codes.isnan()] == 1).all()
    torch.testing.assert_close(values, torch.where(given > 0, codes, 0.0))


def test_masks_follow_their_law():
    """Given in a share of the rows, all numbers of given columns alike; absent beside them in half of these rows."""
    n, share, groups = 40_000, 0.6, torch.tensor([0, 1, 1, 2, 3, 3, 3])
    codes = torch.zeros(n, 7)
    missing = uniform(n, seed=1) < 0.25
    codes[missing, 3] = torch.nan
    given, absent = masks(share, groups).draw(codes, seeded())
    assert set(given.unique().tolist()) == set(absent.unique().tolist()) == {0, 1}
    assert (given * absent).sum() == 0
    for mask in (given, absent):
        assert (mask[:, 1] == mask[:, 2]).all()
        assert ((mask[:, 4] == mask[:, 5]) & (mask[:, 5] == mask[:, 6])).all()
    assert (absent[missing, 3] == 1).all()
    columns = [0, 1, 3, 4]
    counts = torch.bincount(given[~missing][:, columns].sum(1).long(), minlength=5) / (~missing).sum()
    expected = torch.full((5,), share / 5)
    expected[0] += 1 - share
    torch.testing.assert_close(counts, expected, atol=0.01, rtol=0)
    # in half of the rows with masks: E[(1 - p)] E[q] = 1 / 4 of the cells
    assert absent[~missing][:, columns].mean() == pytest.approx(0.5 * share / 4, abs=0.01)
    whole, none = masks(0.0, groups).draw(codes, seeded())
    assert whole.sum() == 0
    torch.testing.assert_close(none, codes.isnan().float())


def test_transport_pairs_whole_rows_among_themselves():
    """Rows with zeros in hidden cells took the noise near zero, and left the others noise that was too wide."""
    labels = nn.functional.one_hot(torch.arange(128) % 2, 2).float()
    problem = objective(2, coupling=OptimalTransportCoupling(), is_masked=True, conditions_are_classes=True)
    for vector in (None, labels):
        noise, scale = [], []
        for seed in range(30):
            x1, hidden = normal(128, 2, seed=seed), uniform(128, 1, seed=seed) < 0.4
            given = hidden.float().expand(128, 2)
            condition = with_entries(vector, x1, given, 0 * given)
            x0, _ = problem.draw_pairs(x1 * (1 - given), condition, seeded(seed))
            noise.append(x0[~hidden[:, 0]])
            scale.append((x0 * x1)[~hidden[:, 0]])
        assert torch.cat(noise).std() == pytest.approx(1.0, abs=0.05)
        assert torch.cat(scale).mean() > 0.7  # it is transport after all


def test_dropping_conditions_and_guidance_leave_the_cells():
    given, absent = some_masks(30, 3)
    cells = with_entries(None, normal(30, 3), given, absent)
    condition = torch.cat([torch.ones(30, 2), cells], dim=1)
    shown = objective(is_masked=True, condition_dropout=0.5).hide_conditions(condition, seeded())
    torch.testing.assert_close(shown[:, 2:], cells)
    assert 0 < (shown[:, :2] == 0).all(1).sum() < 30
    seen = []

    def velocity(x, t, condition):
        seen.append(condition)
        return x

    for scale in (0.0, 3.0):
        guided_velocity(velocity, normal(30, 3), uniform(30), condition, scale, n_kept=CELLS)
    alone, (first, null) = seen[0], seen[1].chunk(2)
    torch.testing.assert_close(first, condition)
    for hidden in (alone, null):
        assert (hidden[:, :2] == 0).all()
        torch.testing.assert_close(hidden[:, 2:], cells)


# -- a law that is known exactly ------------------------------------------------------------------------------------------

MEAN, DEVIATION, CORRELATION = np.array([0.5, -1.0]), np.array([0.8, 1.5]), 0.8


class NormalLaw(nn.Module):
    """The exact velocity of two correlated normal numbers, for every choice of given and absent ones."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x, t, condition):
        values, given, absent, start, log_scale = condition[:, -2 * BLOCKS :].split(2, dim=1)
        mean, deviation = (torch.as_tensor(a).to(x).expand_as(x) for a in (MEAN, DEVIATION))
        one_given, one_absent = given.sum(1, keepdim=True) > 0, absent.sum(1, keepdim=True) > 0
        other = ((values - mean) / deviation * given).flip(1)  # the score of the number that is given
        mean = torch.where(one_given, mean + CORRELATION * deviation * other, mean)
        spread = torch.where(one_given, deviation * (1 - CORRELATION**2) ** 0.5, deviation)
        correlation = CORRELATION * (~one_given & ~one_absent)
        off_diagonal = (correlation * spread.prod(1, keepdim=True))[:, :, None] * (1 - torch.eye(2)).to(x)
        data, noise = torch.diag_embed(spread**2) + off_diagonal, torch.diag_embed((2 * log_scale).exp())
        a, b = t[:, None, None], 1 - t[:, None, None]
        centre = t[:, None] * mean + (1 - t[:, None]) * start
        inner = torch.linalg.solve(a**2 * data + b**2 * noise, (x - centre)[:, :, None])
        return mean - start + ((a * data - b * noise) @ inner)[:, :, 0] + 0 * self.unused


def draws_of_the_law(n, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2))
    z[:, 1] = CORRELATION * z[:, 0] + np.sqrt(1 - CORRELATION**2) * z[:, 1]
    return MEAN + DEVIATION * z


def law_given(values, column):
    """Conditional mean and deviation of `column` given the other one."""
    score = (values - MEAN[1 - column]) / DEVIATION[1 - column]
    return MEAN[column] + CORRELATION * DEVIATION[column] * score, DEVIATION[column] * np.sqrt(1 - CORRELATION**2)


@pytest.fixture(scope="module")
def exact():
    X = draws_of_the_law(60)
    X[0, 0] = X[1, 1] = 4.0  # a wide range for what may be given
    X[2, 0] = X[3, 1] = -4.0
    factory = lambda shape, size, flow_map: NormalLaw()  # noqa: E731
    return FlowMatchingGenerator(factory, preprocessing="none", max_iter=1, n_steps=20, random_state=0).fit(X)


def assert_standard_normal(z):
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * len(z)) + 0.005  # and what twenty steps lose


@pytest.mark.parametrize("column", [0, 1])
def test_draws_given_a_column_follow_the_conditional_law(exact, column):
    values = np.linspace(-2.0, 2.0, 4000)
    for given in (1.5, values):
        drawn = exact.sample(4000, given={1 - column: given}, random_state=0)
        np.testing.assert_array_equal(drawn[:, 1 - column], np.broadcast_to(given, 4000))
        mean, deviation = law_given(drawn[:, 1 - column], column)
        assert_standard_normal((drawn[:, column] - mean) / deviation)


def test_imputed_cells_follow_the_conditional_law(exact):
    X, hidden = draws_of_the_law(6000, seed=1), np.arange(6000) % 3
    holes = X.copy()
    for column in (0, 1):
        holes[hidden == column, column] = np.nan
    filled = exact.impute(holes, random_state=0)
    for column in (0, 1):
        rows = hidden == column
        mean, deviation = law_given(X[rows, 1 - column], column)
        assert_standard_normal((filled[rows, column] - mean) / deviation)
    empty = exact.impute(np.full((4000, 2), np.nan), random_state=0)
    for column in (0, 1):
        assert_standard_normal((empty[:, column] - MEAN[column]) / DEVIATION[column])
    assert np.corrcoef(empty.T)[0, 1] == pytest.approx(CORRELATION, abs=0.03)


def test_densities_and_codes_of_rows_with_missing_cells_are_marginal_ones(exact):
    X = draws_of_the_law(12, seed=2)
    covariance = np.outer(DEVIATION, DEVIATION) * np.array([[1, CORRELATION], [CORRELATION, 1]])
    scores = (X - MEAN) / DEVIATION
    normal_density = -0.5 * scores**2 - 0.5 * np.log(2 * np.pi) - np.log(DEVIATION)
    whole = -0.5 * np.einsum("ni,ij,nj->n", X - MEAN, np.linalg.inv(covariance), X - MEAN) - 0.5 * np.log(
        np.linalg.det(2 * np.pi * covariance)
    )
    holes, expected = X.copy(), whole.copy()
    for row, column in enumerate([0, 1] * 4):  # the last four rows stay whole
        holes[row, column] = np.nan
        expected[row] = normal_density[row, 1 - column]
    holes[8], expected[8] = np.nan, 0.0
    np.testing.assert_allclose(exact.score_samples(holes, solver="rk4", n_steps=60), expected, atol=1e-5)
    codes = exact.encode(holes, solver="rk4", n_steps=60)
    np.testing.assert_array_equal(np.isnan(codes), np.isnan(holes))
    one = np.isnan(holes).sum(1) == 1
    np.testing.assert_allclose(codes[one], np.where(np.isnan(holes[one]), np.nan, scores[one]), atol=1e-5)
    np.testing.assert_allclose(exact.decode(codes, solver="rk4", n_steps=60), holes, atol=1e-4)


def test_complete_samples_fill_absent_cells_from_the_conditional_law(exact):
    X = draws_of_the_law(400)
    X[::2, 1] = np.nan
    model = FlowMatchingGenerator(exact.network, preprocessing="none", max_iter=1, n_steps=20, random_state=0).fit(X)
    drawn = model.sample(4000, random_state=0)
    mean, deviation = law_given(drawn[:, 0], 1)
    assert_standard_normal((drawn[:, 1] - mean) / deviation)
    assert_standard_normal((drawn[:, 0] - MEAN[0]) / DEVIATION[0])


# -- categories -----------------------------------------------------------------------------------------------------------

LEVELS = (2, 5, 64, 65, 1000)


def positions(n=3000, levels=LEVELS, seed=0):
    rng = np.random.default_rng(seed)
    X = np.stack([rng.integers(0, n_levels, n) for n_levels in levels], axis=1).astype(float)
    X[rng.random(X.shape) < 0.1] = np.nan
    return X


def test_categories_come_back_from_their_points_and_from_the_noise_around_them():
    X = positions()
    codes = CategoryCodes(LEVELS).fit(X)
    Z = codes.transform(X)
    assert codes.widths == (1, 5, 64, 7, 10)
    np.testing.assert_array_equal(codes.inverse_transform(Z), X)
    noisy = codes.draw_codes(torch.as_tensor(Z), None, seeded()).numpy()
    assert np.nanstd(noisy - Z) == pytest.approx(NOISE, rel=0.01)
    back = codes.inverse_transform(noisy)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(X))
    assert np.nanmean(back[:, :3] == X[:, :3]) > 0.89  # 0.9 are there


@pytest.mark.parametrize("n_levels", [2, 3, 64, 65, 100])
def test_a_code_becomes_the_nearest_category_that_occurs(n_levels):
    absent = np.arange(n_levels) % 3 == 1
    X = np.flatnonzero(~absent)[:, None].astype(float)
    codes = CategoryCodes((n_levels,)).fit(X)
    points, Z = points_of(n_levels), 2 * normal(500, codes.widths[0]).double().numpy()
    distances = np.linalg.norm(Z[:, None] - points, axis=2)
    apart = np.linalg.norm(points[:, None] - points, axis=2)[~np.eye(n_levels, dtype=bool)]
    assert apart.min() >= 2
    distances[:, absent] = np.inf
    np.testing.assert_array_equal(codes.inverse_transform(Z)[:, 0], distances.argmin(1))


def test_the_density_at_a_point_becomes_the_probability_of_its_category():
    rng = np.random.default_rng(0)
    X = np.stack([rng.choice(2, 400, p=[0.3, 0.7]), rng.choice(5, 400, p=[0.5, 0.2, 0.1, 0.1, 0.1])], axis=1) * 1.0
    codes = CategoryCodes((2, 5)).fit(X)
    Z = codes.transform(X)
    cells, counts = np.unique(X, axis=0, return_counts=True)
    centres = codes.transform(cells)
    exponents = -0.5 * ((Z[:, None] - centres) / NOISE) ** 2 - 0.5 * np.log(2 * np.pi * NOISE**2)
    density = np.exp(exponents.sum(2)) @ (counts / 400)
    shares = (counts / 400)[np.unique(X, axis=0, return_inverse=True)[1].reshape(-1)]
    np.testing.assert_allclose(np.log(density) + codes.log_slope(X).sum(1), np.log(shares), atol=1e-6)


# -- columns with missing cells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", [QuantileNormal, Standardize, MinMax, Log1pStandardize])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_column_with_missing_cells_is_fitted_to_those_that_are_there(transform, weighted):
    rng = np.random.default_rng(0)
    X = np.stack([rng.gamma(2.0, size=200), rng.integers(0, 6, 200), np.round(rng.gamma(1.0, size=200), 1)], axis=1)
    X[rng.random(X.shape) < 0.3] = np.nan
    weight = rng.integers(1, 4, 200) * 1.0 if weighted else None
    weight = weight / weight.mean() if weighted else None
    whole = transform().fit(X, weight)
    values = np.stack([np.nanquantile(column, np.linspace(0, 1, 9)) for column in X.T], axis=1)
    codes = normal(9, 3).double().numpy()
    for j in range(3):
        seen = ~np.isnan(X[:, j])
        part = None if weight is None else weight[seen] / weight[seen].mean()
        alone = transform().fit(X[seen, j : j + 1], part)
        for method, argument in (
            ("transform", values),
            ("log_slope", values),
            ("inverse_transform", codes),
            ("restore", codes),
        ):
            expected = getattr(alone, method)(argument[:, j : j + 1])[:, 0]
            np.testing.assert_allclose(getattr(whole, method)(argument)[:, j], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(np.isnan(whole.transform(X)), np.isnan(X))


@pytest.fixture
def mixed():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": rng.gamma(2.0, size=200),
            "kind": rng.choice(["a", "b", "c"], 200),
            "fixed": 5,
            "flag": rng.random(200) < 0.3,
            "count": rng.integers(0, 9, 200),
        }
    )
    frame = frame.mask(pd.DataFrame(rng.random(frame.shape) < 0.2, columns=frame.columns).assign(fixed=False))
    container = TableContainer.fit(frame)
    X = container.read(frame)
    return SampleEncoder.fit(X, container, QuantileNormal(), None), X


def test_mixed_columns_have_codes_in_their_order_and_come_back(mixed):
    encoder, X = mixed
    assert encoder.code_columns.tolist() == [0, 1, 1, 1, 3, 4]
    Z = encoder.encode(X)
    np.testing.assert_array_equal(np.isnan(Z), np.isnan(X)[:, encoder.code_columns])
    np.testing.assert_allclose(encoder.decode(Z), X)
    np.testing.assert_array_equal(Z[~np.isnan(X[:, 3]), 4], 2 * X[~np.isnan(X[:, 3]), 3] - 1)
    drawn = encoder.training_codes(X, CPU).draw(torch.arange(200), seeded()).double().numpy()
    np.testing.assert_array_equal(np.isnan(drawn), np.isnan(Z))
    restored = encoder.restore(drawn)
    np.testing.assert_allclose(restored[:, 1:], X[:, 1:])
    assert np.nanmedian(np.abs(restored[:, 0] - X[:, 0])) < 0.01  # drawn inside of its cell of ranks
    partly = Z.copy()
    partly[:, 2] = np.nan  # one of the three codes of a category
    assert np.isnan(encoder.decode(partly)[:, 1]).all()
    assert encoder.category_shares(1).sum() == pytest.approx(1.0)


def test_missing_cells_add_nothing_to_the_jacobian(mixed):
    encoder, X = mixed
    slopes = encoder.log_slopes(X)
    assert (slopes[np.isnan(X)] == 0).all()
    assert (slopes[:, 2] == 0).all()
    constant = 0.5 * np.log(2 * np.pi * NOISE**2)
    np.testing.assert_allclose(slopes[~np.isnan(X[:, 1]), 1], 3 * constant)
    np.testing.assert_allclose(slopes[~np.isnan(X[:, 3]), 3], constant)
    np.testing.assert_allclose(encoder.log_jacobian(X), slopes.sum(1))
    other = X.copy()
    other[0, 2], other[1, 2] = 6.0, np.nan
    assert encoder.log_jacobian(other)[0] == -np.inf
    assert np.isfinite(encoder.log_jacobian(other)[1:]).all()


# -- patterns of missing cells ------------------------------------------------------------------------------------------------


def counted(patterns):
    return {tuple(row): int(count) for row, count in zip(*np.unique(patterns, axis=0, return_counts=True), strict=True)}


@pytest.fixture
def patterned():
    """Columns 0 and 1 go together; rows of class 1 always miss column 2."""
    missing = np.zeros((100, 3), dtype=bool)
    missing[:20, :2] = True
    missing[60:, 2] = True
    labels = (np.arange(100) >= 60).astype(np.float32)
    return missing, np.stack([1 - labels, labels], axis=1)


def test_patterns_are_drawn_as_often_as_they_occur(patterned):
    missing, _ = patterned
    nothing = np.zeros(3, dtype=bool)
    patterns = MissingPatterns.fit(missing, None, None)
    drawn = patterns.draw(1000, None, nothing, np.random.RandomState(0))
    assert counted(drawn) == {(True, True, False): 200, (False, False, False): 400, (False, False, True): 400}
    assert (drawn[:500] != drawn[500:]).any()  # in random order
    weight = np.where(np.arange(100) < 20, 4.0, 1.0)
    heavy = counted(MissingPatterns.fit(missing, None, weight).draw(160, None, nothing, np.random.RandomState(0)))
    assert heavy == {(True, True, False): 80, (False, False, False): 40, (False, False, True): 40}
    assert MissingPatterns.fit(missing[20:60], None, None) is None


def test_patterns_go_with_the_condition(patterned):
    missing, vectors = patterned
    patterns, nothing = MissingPatterns.fit(missing, vectors, None), np.zeros(3, dtype=bool)
    wanted = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    drawn = patterns.draw(60, wanted, nothing, np.random.RandomState(0))
    assert counted(drawn[:30]) == {(True, True, False): 10, (False, False, False): 20}
    assert counted(drawn[30:]) == {(False, False, True): 30}
    amounts = np.linspace(0, 1, 100, dtype=np.float32)[:, None]
    near = MissingPatterns.fit(missing, amounts, None)
    drawn = near.draw(40, np.repeat([[0.1], [0.95]], 20, axis=0).astype(np.float32), nothing, np.random.RandomState(0))
    assert counted(drawn) == {(True, True, False): 20, (False, False, True): 20}


def test_patterns_have_the_columns_that_are_given(patterned):
    missing, vectors = patterned
    patterns, rng = MissingPatterns.fit(missing, vectors, None), np.random.RandomState(0)
    first = np.array([True, False, False])
    assert not patterns.draw(50, np.repeat(np.eye(2, dtype=np.float32), 25, axis=0), first, rng)[:, :2].any()
    assert patterns.draw(5, np.tile(np.float32([[0, 1]]), (5, 1)), first, rng)[:, 2].all()
    always = MissingPatterns.fit(missing[60:], None, None)
    assert not always.draw(5, None, np.array([False, False, True]), rng).any()
