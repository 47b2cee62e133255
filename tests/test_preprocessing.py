"""Transforms, encoders, containers and conditions, judged by laws rather than by stored numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid
from scipy.special import ndtr, ndtri

from flowmatch.preprocessing import (
    TRANSFORMS,
    Container,
    Identity,
    LabelEncoder,
    Log1pStandardize,
    MinMax,
    NumberEncoder,
    QuantileNormal,
    SampleEncoder,
    Standardize,
    choose_transform,
    fit_conditions,
)

NAMES = sorted(TRANSFORMS)


def skewed_table(n=60, seed=0):
    """Three positive columns: skewed, tied, of small scale."""
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.gamma(2.0, size=n), rng.integers(0, 6, n), 1e-3 * rng.uniform(1, 2, n)]).astype(float)


def fitted(name, X, **options):
    return TRANSFORMS[name](**options).fit(X)


def encoder_of(X, name, weight=None, container=None):
    return SampleEncoder.fit(X, container or Container.of(X), TRANSFORMS[name](), weight)


def restored_column(column, n=20_000, **options):
    """A column's values for the codes of `n` evenly spread ranks."""
    transform = QuantileNormal(**options).fit(column[:, None].astype(float))
    ranks = torch.as_tensor((np.arange(n) + 0.5) / n)[:, None]
    return transform.restore(transform.draw_codes(ranks, ranks, None).numpy())[:, 0]


def fresh_codes(column, n_draws=20_000, seed=0, **options):
    """Codes as training draws them, rows in equal numbers."""
    transform = QuantileNormal(**options).fit(column[:, None].astype(float))
    low, high = (torch.as_tensor(cells) for cells in transform.training_bounds(column[:, None].astype(float)))
    rows = torch.arange(n_draws) % len(column)
    return transform.draw_codes(low[rows], high[rows], torch.Generator().manual_seed(seed)).numpy()[:, 0]


# -- transforms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_transform_inverts_exactly_on_training_rows(name):
    X = skewed_table()
    transform = fitted(name, X)
    np.testing.assert_allclose(transform.inverse_transform(transform.transform(X)), X, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_transform_inverts_exactly_outside_the_training_range(name):
    X = skewed_table()
    transform = fitted(name, X)
    width = np.ptp(X, axis=0)
    beyond = np.concatenate([X.max(axis=0) + width * [[0.3], [20.0]], X.min(axis=0) * [[0.2]]])
    if name != "log1p":
        beyond = np.concatenate([beyond, X.min(axis=0) - width * [[0.3], [20.0]]])
    np.testing.assert_allclose(transform.inverse_transform(transform.transform(beyond)), beyond, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_transform_is_strictly_increasing(name):
    X = skewed_table()
    line = np.linspace(0.0, 1.5, 400)[:, None] * X.max(axis=0)
    assert (np.diff(fitted(name, X).transform(line), axis=0) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_log_slope_is_the_logarithm_of_a_finite_difference(name):
    X = skewed_table()
    transform = fitted(name, X)
    points = np.random.default_rng(3).uniform(0.01, 1.4, (200, 1)) * X.max(axis=0)
    h = 1e-7 * X.max(axis=0)
    slopes = (transform.transform(points + h) - transform.transform(points - h)) / (2 * h)
    away_from_knots = np.abs(points[:, :, None] - X.T[None]).min(axis=2) > 2 * h
    assert away_from_knots.mean() > 0.9
    np.testing.assert_allclose(transform.log_slope(points)[away_from_knots], np.log(slopes)[away_from_knots], atol=1e-5)


def test_the_ends_of_a_quantile_column_have_the_slopes_inside_the_data():
    X = skewed_table()
    transform, ends = fitted("quantile", X), np.array([X.min(axis=0), X.max(axis=0)])
    inside = ends + 1e-9 * np.ptp(X, axis=0) * [[1], [-1]]
    np.testing.assert_allclose(transform.log_slope(ends), transform.log_slope(inside), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_normal_codes_with_the_log_jacobian_are_a_density(name):
    X = skewed_table()[:, :1]
    transform = fitted(name, X)
    first = 0.0 if name == "log1p" else X.min() - 12 * max(X.std(), 1.0)
    grid = np.linspace(first, X.max() + 12 * max(X.std(), 1.0) * (40 if name == "log1p" else 1), 400_001)[:, None]
    density = np.exp(stats.norm.logpdf(transform.transform(grid)) + transform.log_slope(grid))
    mass_above_the_lower_bound = 1 - ndtr(transform.transform(grid[:1])).item()
    assert trapezoid(density[:, 0], grid[:, 0]) == pytest.approx(mass_above_the_lower_bound, abs=2e-4)


def test_standardize_gives_zero_mean_and_unit_variance():
    Z = fitted("standardize", skewed_table()).transform(skewed_table())
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(Z.std(axis=0), 1)


def test_minmax_gives_minus_one_to_one_and_clips_what_it_restores():
    X = skewed_table()
    transform = fitted("minmax", X)
    Z = transform.transform(X)
    np.testing.assert_allclose([Z.min(axis=0), Z.max(axis=0)], [[-1] * 3, [1] * 3], atol=1e-12)
    np.testing.assert_allclose(transform.restore(np.array([[-9.0] * 3, [9.0] * 3])), [X.min(0), X.max(0)])


def test_log1p_restores_nothing_below_zero():
    restored = fitted("log1p", skewed_table()).restore(np.full((1, 3), -50.0))
    np.testing.assert_array_equal(restored, 0)


@pytest.mark.parametrize("when", ["fit", "transform"])
def test_log1p_refuses_negative_data(when):
    X = skewed_table()
    bad = X.copy()
    bad[3, 1] = -2
    with pytest.raises(ValueError, match=r"log1p.*>= 0.*-2"):
        fitted("log1p", bad) if when == "fit" else fitted("log1p", X).transform(bad)


def test_none_leaves_everything_as_it_is():
    X = skewed_table()
    np.testing.assert_array_equal(fitted("none", X).transform(X), X)


@pytest.mark.parametrize("name", ["standardize", "quantile", "minmax"])
@pytest.mark.parametrize("scale", [1e-200, 1e-12, 1e12, 1e30])
def test_transform_knows_no_scale(name, scale):
    X = skewed_table()[:, :1] * scale
    transform = fitted(name, X)
    Z = transform.transform(X)
    assert np.isfinite(Z).all()
    if scale > 1e-100 or name != "standardize":  # squares of 1e-200 are 0 in float64
        assert 0.1 < Z.std() < 3
    np.testing.assert_allclose(transform.inverse_transform(Z), X, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_weight_two_is_the_row_twice(name):
    X = skewed_table()
    counts = np.random.default_rng(1).integers(1, 4, len(X))
    weighted = TRANSFORMS[name]().fit(X, counts / counts.mean())
    repeated = fitted(name, np.repeat(X, counts, axis=0))
    points = np.linspace(0.0, 1.3, 300)[:, None] * X.max(axis=0)
    np.testing.assert_allclose(weighted.transform(points), repeated.transform(points), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(weighted.log_slope(X), repeated.log_slope(X), rtol=1e-8, atol=1e-8)


def test_weighted_ties_are_restored_as_often_as_they_weigh():
    column = np.repeat([0.0, 1.0], 50)
    weight = np.where(column == 1, 1.8, 0.2)
    transform = QuantileNormal().fit(column[:, None], weight)
    ranks = (np.arange(1000) + 0.5) / 1000
    assert transform.restore(ndtri(ranks)[:, None]).mean() == pytest.approx(0.9, abs=1e-12)


# -- quantile -----------------------------------------------------------------------------------------------------


def zero_inflated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.uniform(size=n) < 0.6, 0.0, rng.gamma(2.0, size=n))


COLUMNS = {
    "binary": np.repeat([0.0, 1.0], [140, 60]),
    "unequal_levels": np.repeat([-3.0, 0.0, 0.5, 100.0], [10, 90, 60, 40]),
    "integers": np.random.default_rng(0).integers(-20, 300, 200).astype(float),
    "one_decimal": np.random.default_rng(0).normal(50, 10, 200).round(1),
    "zero_inflated_counts": np.random.default_rng(0).poisson(0.4, 200).astype(float),
    "thousands": np.random.default_rng(0).integers(1, 90, 100) * 1000.0,
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_quantile_restores_values_inside_the_range_only(kind):
    column = COLUMNS[kind]
    restored = restored_column(column)
    assert restored.min() == column.min()
    assert restored.max() == column.max()


@pytest.mark.parametrize("kind", ["binary", "unequal_levels", "zero_inflated_counts"])
def test_quantile_restores_only_levels_that_were_there(kind):
    column = COLUMNS[kind]
    assert set(restored_column(column)) <= set(column)


@pytest.mark.parametrize(("kind", "decimals"), [("integers", 0), ("one_decimal", 1), ("thousands", 0)])
def test_quantile_restores_on_the_columns_decimals(kind, decimals):
    restored = restored_column(COLUMNS[kind])
    np.testing.assert_array_equal(restored, np.round(restored, decimals))
    assert len(np.unique(restored)) > len(np.unique(COLUMNS[kind]))  # new values between the old ones


@pytest.mark.parametrize("kind", ["binary", "unequal_levels", "zero_inflated_counts"])
def test_quantile_restores_ties_exactly_as_often_as_they_were(kind):
    column = COLUMNS[kind]
    values, counts = np.unique(column, return_counts=True)
    restored_values, restored_counts = np.unique(restored_column(column, n=100 * len(column)), return_counts=True)
    np.testing.assert_array_equal(restored_values, values)
    np.testing.assert_array_equal(restored_counts, 100 * counts)


def test_quantile_keeps_the_share_of_zeros_to_within_one_row():
    column = zero_inflated()
    assert np.mean(restored_column(column) == 0) == pytest.approx(np.mean(column == 0), abs=1 / len(column))
    assert restored_column(column).min() == 0


def test_quantile_restores_a_continuous_column_with_its_quantiles():
    column = np.random.default_rng(0).gamma(2.0, size=500)
    assert stats.ks_2samp(restored_column(column), column).statistic < 2 / len(column)


def test_quantile_never_restores_a_negative_zero():
    restored = restored_column(np.arange(-3.0, 4.0))
    assert not np.signbit(restored[restored == 0]).any()
    assert (restored == 0).any()


@pytest.mark.parametrize(
    "column", [COLUMNS["binary"], COLUMNS["zero_inflated_counts"], np.random.default_rng(0).gamma(2.0, size=400)],
    ids=["binary", "zero_inflated", "continuous"],
)  # fmt: skip
def test_codes_drawn_in_training_are_standard_normal(column):
    assert stats.kstest(fresh_codes(column), "norm").pvalue > 1e-3


def test_fixed_codes_of_a_binary_column_are_not_normal():
    column = COLUMNS["binary"]
    assert stats.kstest(fitted("quantile", column[:, None]).transform(column[:, None])[:, 0], "norm").pvalue < 1e-3


def test_codes_drawn_in_training_stay_in_their_rows_cell():
    column = COLUMNS["unequal_levels"]
    transform = fitted("quantile", column[:, None])
    codes = fresh_codes(column, n_draws=len(column))
    np.testing.assert_array_equal(transform.restore(codes[:, None].astype(float))[:, 0], column)


def test_thinning_keeps_at_most_max_knots_and_changes_little():
    X = np.random.default_rng(0).gamma(2.0, size=(3000, 1))
    full, thin = fitted("quantile", X), fitted("quantile", X, max_knots=100)
    assert len(thin.values_) == 100
    assert len(full.values_) == 2000
    points = np.quantile(X, np.linspace(0.01, 0.99, 50))[:, None]
    np.testing.assert_allclose(thin.transform(points), full.transform(points), atol=0.15)
    normal = ndtri((np.arange(2000) + 0.5) / 2000)[:, None]
    assert stats.ks_2samp(thin.restore(normal)[:, 0], full.restore(normal)[:, 0]).statistic < 0.02
    np.testing.assert_allclose(thin.inverse_transform(thin.transform(X)), X, rtol=1e-9)
    np.testing.assert_array_equal(thin.restore(np.array([[-9.0], [9.0]]))[:, 0], [X.min(), X.max()])


def test_codes_of_a_thinned_column_are_standard_normal():
    column = np.random.default_rng(0).gamma(2.0, size=3000)
    assert stats.kstest(fresh_codes(column, n_draws=30_000, max_knots=100), "norm").statistic < 0.02


@pytest.mark.parametrize("max_knots", [1, 0, -5, 2.5, "many", True])
def test_max_knots_out_of_range_is_refused(max_knots):
    with pytest.raises(ValueError, match=r"max_knots must be an integer >= 2"):
        fitted("quantile", skewed_table(), max_knots=max_knots)


@pytest.mark.parametrize(("dtype", "decimals"), [(np.float64, 2), (np.float32, 2), (np.float16, 1)])
def test_decimals_of_coarse_floats_are_found(dtype, decimals):
    X = np.random.default_rng(0).uniform(1, 9, (200, 1)).round(decimals).astype(dtype)
    encoder = encoder_of(X.astype(float), "quantile", container=Container.of(X))
    assert encoder.transform.decimals_.tolist() == [decimals]
    restored = encoder.restore(np.random.default_rng(1).normal(size=(500, 1)))
    np.testing.assert_array_equal(restored, restored.round(decimals))
    assert set(encoder.container.wrap(restored)[:, 0]) <= set(
        np.arange(0, 10, 10.0**-decimals).round(decimals).astype(dtype)
    )


@pytest.mark.parametrize(("dtype", "scale"), [(np.float16, 200.0), (np.float32, 2e6)])
def test_continuous_coarse_floats_are_not_mistaken_for_integers(dtype, scale):
    X = (scale * np.random.default_rng(0).uniform(1, 1.5, (50, 1))).astype(dtype)
    encoder = encoder_of(X.astype(float), "quantile", container=Container.of(X))
    restored = encoder.restore(np.random.default_rng(1).normal(size=(500, 1)))
    assert np.mean(restored != np.round(restored)) > 0.5


def test_a_coarse_column_does_not_coarsen_its_neighbours():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"coarse": rng.normal(size=80).astype("float16"), "fine": rng.uniform(100, 110, 80).round(2)})
    encoder = encoder_of(X.to_numpy(float), "quantile", container=Container.of(X))
    assert encoder.transform.decimals_[1] == 2


# -- samples to codes ---------------------------------------------------------------------------------------------


def grids(n=12, channels=3, points=7):
    rng = np.random.default_rng(0)
    return rng.gamma(2.0, size=(n, channels, points)) * 10.0 ** np.arange(channels)[:, None]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(3,), (3, 7), (2, 3, 4), (2, 2, 3, 2)])
def test_encoder_inverts_exactly_on_tables_and_grids(name, shape):
    X = np.random.default_rng(0).gamma(2.0, size=(15, *shape))
    encoder = encoder_of(X, name)
    codes = encoder.encode(X)
    assert codes.shape == (15, *encoder.code_shape) == X.shape
    np.testing.assert_allclose(encoder.decode(codes), X, rtol=1e-10)


def test_grids_are_standardised_per_channel():
    codes = encoder_of(grids(), "standardize").encode(grids())
    np.testing.assert_allclose(codes.mean(axis=(0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(codes.std(axis=(0, 2)), 1)


def test_auto_means_quantile_for_tables_and_standardize_for_grids():
    assert isinstance(choose_transform((5,)), QuantileNormal)
    assert isinstance(choose_transform((1, 5)), Standardize)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2,), (2, 3)])
def test_log_jacobian_is_the_log_determinant_of_encode(name, shape):
    X = np.random.default_rng(0).gamma(2.0, size=(20, *shape))
    encoder, row, h = encoder_of(X, name), X[:1] * 1.013, 1e-7
    steps = h * np.eye(row.size).reshape(row.size, *shape)
    jacobian = (encoder.encode(row + steps) - encoder.encode(row - steps)).reshape(row.size, -1) / (2 * h)
    assert encoder.log_jacobian(row)[0] == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_constant_columns_get_no_code_and_come_back_exactly(name):
    X = np.column_stack([np.full(30, 0.1), skewed_table(30), np.full(30, 7e5)])
    encoder = encoder_of(X, name)
    assert encoder.code_shape == (3,)
    for method in (encoder.decode, encoder.restore):
        values = method(np.random.default_rng(0).normal(size=(9, 3)))
        np.testing.assert_array_equal(values[:, [0, -1]], np.tile([0.1, 7e5], (9, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_all_equal_come_back_exactly(name):
    X = np.tile([0.1, 2.0], (8, 1))
    encoder = encoder_of(X, name)
    assert encoder.code_shape == (1,)
    np.testing.assert_allclose(encoder.decode(encoder.encode(X)), X, rtol=1e-14)


def test_constant_channels_come_back_exactly():
    X = grids()
    X[:, 1] = 0.3
    encoder = encoder_of(X, "standardize")
    assert np.isfinite(encoder.encode(X)).all()
    np.testing.assert_array_equal(encoder.restore(np.random.default_rng(0).normal(size=(4, 3, 7)))[:, 1], 0.3)


def test_log_jacobian_is_minus_infinity_off_a_constant_column():
    X = np.column_stack([skewed_table(30)[:, :1], np.ones(30)])
    other = X[:2].copy()
    other[1, 1] = 2.0
    log_jacobian = encoder_of(X, "quantile").log_jacobian(other)
    assert np.isfinite(log_jacobian[0])
    assert log_jacobian[1] == -np.inf


def test_weights_of_grids_act_like_repeated_samples():
    X, counts = grids(), np.tile([1, 3], 6)
    for name in NAMES:
        weighted = encoder_of(X, name, counts / counts.mean())
        np.testing.assert_allclose(
            weighted.encode(X), encoder_of(np.repeat(X, counts, axis=0), name).encode(X), rtol=1e-8
        )


def test_training_codes_are_drawn_by_row():
    X = skewed_table()
    codes = encoder_of(X, "standardize").training_codes(X, torch.device("cpu"))
    drawn = codes.draw(torch.tensor([4, 4, 1])).numpy()
    np.testing.assert_allclose(drawn, encoder_of(X, "standardize").encode(X)[[4, 4, 1]], rtol=1e-5)
    assert len(codes) == len(X)


# -- containers ---------------------------------------------------------------------------------------------------

NUMPY_DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "bool", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("kind", ["numpy", "dataframe", "series", "torch"])
def test_values_come_back_in_the_container_and_dtype_they_came_in(kind, dtype):
    values = np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype)
    data = {
        "numpy": lambda: values,
        "dataframe": lambda: pd.DataFrame(values, columns=["a", "b"]),
        "series": lambda: pd.Series(values[:, 0], name="a"),
        "torch": lambda: torch.as_tensor(values),
    }[kind]()
    back = Container.of(data).wrap(np.asarray(data, dtype=np.float64))
    assert type(back) is type(data)
    if kind == "dataframe":
        pd.testing.assert_frame_equal(back, data)
    elif kind == "series":
        pd.testing.assert_series_equal(back, data)
    else:
        assert back.dtype == data.dtype
        assert (back == data).all()


@pytest.mark.parametrize("dtype", ["Int8", "Int64", "UInt8", "boolean", "Float32", "Float64"])
def test_nullable_pandas_dtypes_come_back(dtype):
    frame = pd.DataFrame({"a": pd.array([0, 1, 1], dtype=dtype), "b": [0.5, 1.5, 2.5]})
    pd.testing.assert_frame_equal(Container.of(frame).wrap(frame.to_numpy(np.float64)), frame)


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127), ("uint16", 0, 65535)])
@pytest.mark.parametrize("kind", ["numpy", "torch", "dataframe"])
def test_integers_are_rounded_and_saturate(kind, dtype, low, high):
    wrap = {"numpy": np.asarray, "torch": torch.as_tensor, "dataframe": pd.DataFrame}[kind]
    container = Container.of(wrap(np.zeros((2, 1), dtype=dtype)))
    back = np.asarray(container.wrap(np.array([[-1e9], [1e9], [3.4], [3.6]])))
    assert back[:, 0].tolist() == [low, high, 3, 4]


def test_bfloat16_tensors_come_back():
    data = torch.tensor([[0.5, 2.0]], dtype=torch.bfloat16)
    back = Container.of(data).wrap(data.double().numpy())
    assert back.dtype == torch.bfloat16
    assert (back == data).all()


@pytest.mark.parametrize(
    "columns",
    [[0, 1], [3, 1], ["a", "a"], ["a", 1], [0.5, "x"], [("a", 1), ("a", 2)], [pd.Timestamp("2026-01-01"), "b"]],
    ids=str,
)
def test_column_names_of_any_kind_come_back(columns):
    frame = pd.DataFrame([[1, 2.5], [2, 3.5]])
    frame.columns = pd.Index(columns)
    back = Container.of(frame).wrap(np.array([[1, 2.5], [2, 3.5]]))
    assert list(back.columns) == list(frame.columns)
    assert back.columns.nlevels == frame.columns.nlevels
    assert back.dtypes.tolist() == frame.dtypes.tolist()


def test_generated_rows_get_an_index_of_their_own():
    frame = pd.DataFrame({"a": [1.0, 2.0]}, index=["x", "y"])
    assert Container.of(frame).wrap(np.zeros((3, 1))).index.tolist() == [0, 1, 2]


def test_a_nested_list_comes_back_as_an_array():
    back = Container.of([[1, 2], [3, 4]]).wrap(np.array([[1.2, 2.0]]))
    assert back.tolist() == [[1, 2]]
    assert back.dtype == int


# -- conditions ---------------------------------------------------------------------------------------------------

LABELS = {
    "str": np.array(["b", "a", "b", "c"]),
    "int": np.array([5, -1, 5, 9]),
    "int8": np.array([5, -1, 5, 9], dtype="int8"),
    "bool": np.array([True, False, True, True]),
    "integral_float": np.array([2.0, 1.0, 2.0, 7.0]),
    "object": np.array(["b", "a", "b", "c"], dtype=object),
    "list": ["b", "a", "b", "c"],
    "series": pd.Series(["b", "a", "b", "c"], index=[9, 8, 7, 6]),
    "category": pd.Series(["b", "a", "b", "c"], dtype="category"),
    "string": pd.Series(["b", "a", "b", "c"], dtype="string"),
    "nullable": pd.Series([5, 1, 5, 9], dtype="Int64"),
    "torch": torch.tensor([5, 1, 5, 9]),
    "text_column": pd.DataFrame({"kind": ["b", "a", "b", "c"]}),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_dtype_become_one_hot_vectors(kind):
    y = LABELS[kind]
    encoder = fit_conditions(y, None)
    assert isinstance(encoder, LabelEncoder)
    flat = np.asarray(y).ravel()
    np.testing.assert_array_equal(encoder.classes, np.unique(flat))
    np.testing.assert_array_equal(encoder.classes[encoder.encode(flat, 4).argmax(axis=1)], flat)
    np.testing.assert_array_equal(encoder.encode(flat, 4).sum(axis=1), 1)
    assert encoder.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", LABELS)
def test_drawn_labels_come_in_the_container_of_y(kind):
    y = LABELS[kind]
    encoder = fit_conditions(y, None)
    drawn = encoder.container.wrap(encoder.draw(8, np.random.RandomState(0)))
    assert type(drawn) is (np.ndarray if kind == "list" else type(y))
    if hasattr(y, "dtype"):
        assert str(drawn.dtype) == str(y.dtype)
    assert set(np.asarray(drawn).ravel().tolist()) == set(np.asarray(y).ravel().tolist())


@pytest.mark.parametrize(
    ("kind", "label"), [("str", "a"), ("int", 5), ("bool", True), ("integral_float", 2), ("object", "c")]
)
def test_one_label_serves_for_all_samples(kind, label):
    encoder = fit_conditions(LABELS[kind], None)
    np.testing.assert_array_equal(encoder.encode(label, 6), encoder.encode([label] * 6, 6))


@pytest.mark.parametrize(
    ("kind", "unseen"),
    [("str", "z"), ("str", 3), ("int", 4), ("int", 5.5), ("int", "5"), ("bool", 2), ("integral_float", np.nan), ("object", None)],
)  # fmt: skip
def test_labels_never_seen_are_refused_by_name(kind, unseen):
    encoder = fit_conditions(LABELS[kind], None)
    known = LABELS[kind][0]
    with pytest.raises(ValueError, match=r"Known labels: ") as caught:
        encoder.encode(np.array([known, unseen], dtype=object), 2)
    assert f"label {unseen!r}" in str(caught.value)


@pytest.mark.parametrize("y", [["a"] * 3, [["a", "b"]], []])
def test_a_wrong_number_of_labels_is_refused(y):
    with pytest.raises(ValueError, match=r"y has shape .*one label, or one for each of 2 samples"):
        fit_conditions(LABELS["str"], None).encode(np.array(y), 2)


AMOUNTS = np.random.default_rng(0).normal(3, 2, 50)


@pytest.mark.parametrize(
    ("y", "k"),
    [
        (AMOUNTS, 1),
        (AMOUNTS.reshape(25, 2), 2),
        (pd.Series(AMOUNTS, name="dose"), 1),
        (pd.DataFrame(AMOUNTS.reshape(25, 2), columns=["dose", "time"]), 2),
        (pd.DataFrame({"dose": AMOUNTS, "arm": pd.array([0, 1] * 25, dtype="Int64")}), 2),
        (pd.DataFrame({"dose": AMOUNTS, "treated": [True, False] * 25}), 2),
        (torch.as_tensor(AMOUNTS), 1),
        (np.arange(50)[:, None], 1),
    ],
    ids=["array", "matrix", "series", "frame", "nullable_frame", "bool_frame", "torch", "integer_column"],
)
def test_numbers_become_standardised_vectors_with_a_flag(y, k):
    encoder = fit_conditions(y, None)
    assert isinstance(encoder, NumberEncoder)
    vectors = encoder.encode(np.asarray(y, dtype=float), len(y))
    assert vectors.shape == (len(y), k + 1)
    np.testing.assert_allclose(vectors[:, :k].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(vectors[:, :k].std(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(vectors[:, k], 1)


@pytest.mark.parametrize(
    "y", [AMOUNTS, AMOUNTS.reshape(25, 2), pd.Series(AMOUNTS, name="dose"), torch.as_tensor(AMOUNTS)]
)
def test_drawn_numbers_are_like_training_conditions_in_their_container(y):
    encoder = fit_conditions(y, None)
    drawn = encoder.container.wrap(encoder.draw(len(y), np.random.RandomState(0)))
    assert type(drawn) is type(y)
    assert drawn.shape == y.shape
    drawn, y = np.sort(np.asarray(drawn), axis=0), np.sort(np.asarray(y), axis=0)
    assert np.abs(drawn - y).mean() < 0.3 * y.std()
    assert (drawn.min(axis=0) >= y.min(axis=0)).all()
    assert (drawn.max(axis=0) <= y.max(axis=0)).all()


def test_a_constant_number_is_encoded_as_zero_with_its_flag():
    encoder = fit_conditions(np.column_stack([np.ones(9), np.arange(9.0)]), None)
    np.testing.assert_array_equal(encoder.encode([1.0, 4.0], 1), [[0, 0, 1]])


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.arange(20), LabelEncoder),
        (np.arange(21), NumberEncoder),
        (np.arange(21).astype(str), LabelEncoder),
        (np.arange(21.0), NumberEncoder),
        (np.repeat(np.arange(21), 10), LabelEncoder),
        (np.append(np.repeat(np.arange(21), 10)[:-1], 0), LabelEncoder),
        (np.repeat(np.arange(21), 10)[:-1], NumberEncoder),
        (np.array([0.0, 1.0, 1.0]), LabelEncoder),
        (np.array([0.0, 1.0, 1.5]), NumberEncoder),
        (np.array([[0], [1], [1]]), NumberEncoder),
        (np.array([True, False, True]), LabelEncoder),
    ],
)
def test_labels_or_amounts(y, kind):
    assert isinstance(fit_conditions(y, None), kind)


@pytest.mark.parametrize("n_samples", [1, 7, 100, 1001])
def test_draw_gives_each_class_its_share_to_within_one(n_samples):
    y = np.repeat(list("abcde"), [1, 2, 3, 30, 64])
    encoder = fit_conditions(y, None)
    for seed in range(5):
        drawn = encoder.draw(n_samples, np.random.RandomState(seed))
        counts = np.array([(drawn == label).sum() for label in encoder.classes])
        assert np.abs(counts - n_samples * encoder.shares).max() < 1
        assert counts.sum() == n_samples


def test_draw_differs_by_seed_and_repeats_with_it():
    encoder = fit_conditions(np.repeat(list("abc"), 10), None)
    first, again, other = (encoder.draw(30, np.random.RandomState(seed)).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_rare_classes_are_drawn_sometimes():
    encoder = fit_conditions(np.repeat(["common", "rare"], [99, 1]), None)
    share = np.mean([(encoder.draw(10, np.random.RandomState(seed)) == "rare").sum() for seed in range(500)]) / 10
    assert share == pytest.approx(0.01, abs=0.005)


def test_weights_of_conditions_act_like_repeated_rows():
    counts = np.array([1, 2, 3, 1])
    for y in (np.array(list("abca")), np.array([0.5, 1.0, 2.0, 0.5])):
        weighted, repeated = fit_conditions(y, counts / counts.mean()), fit_conditions(np.repeat(y, counts), None)
        np.testing.assert_allclose(weighted.encode(y, 4), repeated.encode(y, 4), rtol=1e-6)
        np.testing.assert_allclose(weighted.shares, repeated.shares)
        drawn = [np.sort(encoder.draw(10, np.random.RandomState(0))).tolist() for encoder in (weighted, repeated)]
        assert drawn[0] == drawn[1]


@pytest.mark.parametrize(
    "y",
    [
        np.array([1.0, np.nan, 2.0]),
        np.array([1.0, np.inf, 2.0]),
        np.array([[1.0, 2.0], [np.nan, 1.0]]),
        np.array(["a", None, "b"], dtype=object),
        np.array(["a", np.nan, "b"], dtype=object),
        pd.Series(["a", None, "b"], dtype="string"),
        pd.Series(["a", None, "b"], dtype="category"),
        pd.Series([1, None, 2], dtype="Int64"),
        pd.Series([True, None, False], dtype="boolean"),
        pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [1.0, 2.0]}),
    ],
    ids=["nan", "inf", "matrix", "none", "object_nan", "string", "category", "nullable", "boolean", "frame"],
)
def test_missing_conditions_are_refused(y):
    with pytest.raises(ValueError, match=r"Input y contains NaN"):
        fit_conditions(y, None)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.array([1, "a"], dtype=object), "y mixes types that cannot be sorted: int, str"),
        (np.zeros((3, 1, 1)), "y has 3 dimensions"),
    ],
)
def test_conditions_of_a_wrong_form_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        fit_conditions(y, None)


@pytest.mark.parametrize("y", ["low", [1.0, 2.0, 3.0], [[1.0, 2.0, 3.0]], [np.nan, 1.0], np.zeros((3, 2))])
def test_wrong_numbers_are_refused(y):
    encoder = fit_conditions(AMOUNTS.reshape(25, 2), None)
    with pytest.raises(ValueError, match=r"^y (must hold numbers|has shape|contains NaN)"):
        encoder.encode(y, 4)


@pytest.mark.parametrize("transform", [Identity(), MinMax(), Log1pStandardize(), QuantileNormal(max_knots=50)])
def test_transforms_show_their_parameters_only(transform):
    assert type(transform)(**transform.get_params()) == transform
    assert "_=" not in repr(transform)
