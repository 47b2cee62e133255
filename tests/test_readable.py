"""Data that cannot be read as they stand are refused by name; numbers beyond floats, too; nothing is read silently."""

import decimal
import fractions
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import coo_array, csr_array
from sklearn.dummy import DummyRegressor

from flowmatch import (
    AugmentedRegressor,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
)
from flowmatch.core.checks import check_count, check_number
from flowmatch.core.user_warnings import quietly
from flowmatch.networks import MLP
from flowmatch.tables.readable import as_numpy, check_readable

N = 12
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(N, 3)), RNG.normal(size=N)
FIELDS = RNG.normal(size=(N, 2, 4))
HUGE = 10**5000
pytestmark = pytest.mark.filterwarnings("ignore:.* held-out rows|.* a single row|X has feature names:UserWarning")
SMALL = {"network": MLP(width=4, depth=1), "max_iter": 2, "batch_size": 8, "n_steps": 1, "random_state": 0, "device": "cpu"}  # fmt: skip


def generator(**parameters):
    return FlowMatchingGenerator(**{**SMALL, **parameters})


def forecaster(**parameters):
    return ConditionalForecaster(**{**SMALL, "n_samples": 4, **parameters})


FITS = {
    "generator": lambda X: generator().fit(X),
    "detector": lambda X: FlowAnomalyDetector(**SMALL, n_folds=2).fit(X),
    "series": lambda X: forecaster().fit(X),
    "regression": lambda X: forecaster().fit(X, Y),
    "student": lambda X: DistilledFlowMap(generator(), max_iter=1, n_pairs=4).fit(X),
    "scores": lambda X: generator().fit(FIELDS[:, 0, :3]).score_samples(X),
    "forecasts": lambda X: forecaster().fit(FIELDS[:, 0, :3], Y).predict(X),
}
TENSORS = {
    "sparse": lambda: torch.as_tensor(X).to_sparse(),
    "compressed": lambda: torch.as_tensor(X).to_sparse_csr(),
    "sparse grids": lambda: torch.as_tensor(FIELDS).to_sparse(),
    "nested": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "without data": lambda: torch.empty(N, 3, device="meta"),
    "quantized": lambda: torch.quantize_per_tensor(torch.as_tensor(X).float(), 0.1, 0, torch.qint8),
    "eight bits": lambda: torch.as_tensor(X).to(torch.float8_e4m3fn),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about what is young in it
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_numpy_cannot_hold_are_a_type_error_that_says_what_to_pass(what, fit):
    with pytest.raises(TypeError, match=r"X is a tensor of dtype .* and layout .*; expected a dense one.*to_dense"):
        FITS[fit](TENSORS[what]())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int32, torch.bool])
def test_forecasters_take_tensors_of_any_plain_dtype_as_they_take_arrays(dtype):
    tensor = torch.as_tensor(10 * X).to(dtype)
    array = tensor.float().numpy() if dtype == torch.bfloat16 else tensor.numpy()
    for given in ((tensor,), (tensor, torch.as_tensor(Y).to(torch.bfloat16))):
        arrays = (array, given[1].float().numpy()) if len(given) == 2 else (array,)
        model, other = forecaster().fit(*given), forecaster().fit(*arrays)
        np.testing.assert_array_equal(model.predict(tensor[:4]), other.predict(array[:4]))


def test_tensors_with_gradients_are_data_everywhere():
    leaf = torch.as_tensor(X).requires_grad_()
    assert generator().fit(leaf, leaf[:, :1]).sample(2).requires_grad is False
    model = forecaster().fit(leaf, leaf[:, 0])
    np.testing.assert_array_equal(model.predict(leaf), model.predict(X))
    assert model.predict_quantiles(X, torch.tensor([0.5], requires_grad=True)).shape == (1, N)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("table", [csr_array(X), coo_array(X)], ids=["csr", "coo"])
def test_sparse_matrices_are_refused(table, fit):
    with pytest.raises((TypeError, ValueError), match=r"[Ss]parse|array; expected trajectories"):
        FITS[fit](table)


MASKED = np.ma.masked_array(X, mask=X > 1)


@pytest.mark.parametrize("fit", FITS)
def test_masked_entries_are_missing_ones_in_tables_and_else_not_read_as_if_they_were_there(fit):
    if fit in ("generator", "detector", "scores"):
        FITS[fit](MASKED)
    else:
        message = rf"is a masked array with {MASKED.mask.sum()} masked entries|contains NaN: position \(2, 0\)"
        with pytest.raises(ValueError, match=message):
            FITS[fit](MASKED)
    FITS[fit](np.ma.masked_array(X))  # none is


def test_masked_conditions_and_weights_are_refused_by_name():
    hidden = np.ma.masked_array(np.ones(N), mask=np.arange(N) == 3)
    with pytest.raises(ValueError, match="y is a masked array with 1 masked"):
        generator().fit(X, hidden)
    with pytest.raises(ValueError, match="sample_weight is a masked array with 1 masked"):
        generator().fit(X, None, hidden)
    with pytest.raises(ValueError, match="trajectory 1 of X is a masked array"):
        forecaster().fit([X, MASKED])
    with pytest.raises(ValueError, match=r"X\[1\] is a masked array"):
        generator().fit([FIELDS[0], np.ma.masked_array(FIELDS[0], mask=True)])


STRUCTURED = [("a", "f8"), ("b", "i4")]


@pytest.mark.parametrize(
    ("fit", "dtype"),
    [
        *((fit, "V8") for fit in ("generator", "detector", "regression", "series", "scores")),
        ("regression", STRUCTURED),
        ("series", STRUCTURED),
    ],
)
def test_structured_arrays_that_hold_no_table_are_refused(dtype, fit):
    with pytest.raises(ValueError, match=r"structured array of dtype .* expected one dtype"):
        FITS[fit](np.zeros(N, dtype=dtype))


NO_DATA = {
    "a generator": (row for row in X),
    "an iterator": iter(X),
    "a map": map(list, X),
    "a set": {1, 2},
    "nothing": None,
    "text": "text",
    "bytes": b"text",
    "a function": len,
    "a class": int,
    "an ellipsis": ...,
}


@pytest.mark.parametrize("fit", ["generator", "detector", "student", "scores"])
@pytest.mark.parametrize("what", [what for what in NO_DATA if what != "nothing"])
def test_what_holds_no_samples_is_a_type_error_that_says_what_is_expected(what, fit):
    with pytest.raises(TypeError, match=r"X is a .*; expected a table \(n_samples, n_features\) or grids"):
        FITS[fit](NO_DATA[what])


def test_none_is_no_data():
    with pytest.raises(TypeError, match="X is a NoneType; expected a table"):
        generator().fit(None)
    with pytest.raises(ValueError, match="X is a NoneType; expected trajectories"):
        forecaster().fit(None)


def test_views_of_memory_are_arrays():
    np.testing.assert_array_equal(generator().fit(memoryview(X)).score_samples(X), generator().fit(X).score_samples(X))


NUMBERS = {
    "digits": HUGE,
    "negative digits": -HUGE,
    "400 digits": 10**400,
    "a fraction": fractions.Fraction(HUGE, 3),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_numbers_that_no_float_holds_are_refused_where_they_stand(what):
    rows = X.astype(object)
    rows[7, 1] = NUMBERS[what]
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    with pytest.raises(ValueError, match="column 'b' of X holds a number in row 7 that no float can hold"):
        generator().fit(frame)
    for given in (rows, rows.tolist()):
        with pytest.raises(ValueError, match="column 1 of X holds a number in row 7 that no float can hold"):
            generator().fit(given)
        with pytest.raises(ValueError, match="column 1 of X holds a number in row 7"):
            generator().fit(X).score_samples(given)
        with pytest.raises(ValueError, match="X holds a number that no float can hold"):
            forecaster().fit(X, Y).predict(given)
    y = Y.astype(object)
    y[3] = NUMBERS[what]
    for call, name in (
        (lambda: generator().fit(X, np.stack([y, y], axis=1)), "y"),
        (lambda: generator().fit(X, None, y), "sample_weight"),
        (lambda: forecaster().fit(X, y), "y"),
        (lambda: generator().fit(X, Y + 0.5).sample(N, y=y), "y"),
        (lambda: forecaster().fit(X, Y).score(X, Y, sample_weight=np.abs(y)), "sample_weight"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} (holds a number|must hold)"):
            call()


def test_signaling_nan_is_refused():
    rows = [[decimal.Decimal("sNaN"), 1.0]] * 4
    for call in (lambda: generator().fit(rows), lambda: forecaster().fit(X[:4], [row[0] for row in rows])):
        with pytest.raises(ValueError, match=r"signaling NaN"):
            call()


@pytest.mark.parametrize(
    "value", [HUGE, -HUGE, fractions.Fraction(HUGE, 3), [HUGE]], ids=["int", "-int", "ratio", "list"]
)
def test_errors_about_parameters_of_5000_digits_name_the_parameter(value):
    for name in (
        "max_iter",
        "batch_size",
        "learning_rate",
        "random_state",
        "masked_share",
        "training",
        "n_steps",
        "device",
    ):
        with pytest.raises(ValueError, match=rf"{name} .*digits"):
            generator(**{name: value}).fit(X)
    with pytest.raises(ValueError, match="n_samples must be an integer"):
        generator().fit(X).sample(value)


def test_checks_take_numbers_of_any_library_and_no_number_that_is_none():
    assert check_count("n", np.uint8(3)) == 3
    assert check_number("x", np.float16(0.5), 0.0, 1.0) == 0.5
    assert check_number("x", fractions.Fraction(1, 4), 0.0, 1.0) == 0.25
    for value in (2**63, True, 2.0, np.float64(2.0), "2", np.array(2), None, decimal.Decimal(2)):
        with pytest.raises(ValueError, match="n must be an integer"):
            check_count("n", value)
    for value in (HUGE, np.longdouble("1e4000"), float("inf"), float("nan"), True, "1", 2j, None):
        with pytest.raises(ValueError, match="x must be a number"):
            check_number("x", value, 0.0)


def test_numpy_integers_are_numbers_of_rows():
    model = generator(batch_size=np.int8(8), max_iter=np.uint16(2)).fit(X)
    np.testing.assert_array_equal(
        model.sample(np.uint8(5), random_state=0, batch_size=np.int8(2)), model.sample(5, random_state=0)
    )


def test_forecasters_refuse_numbers_that_float32_cannot_hold():
    large = X.copy()
    large[2, 1] = 1e39
    frame = pd.DataFrame(large, columns=["a", "b", "c"])
    with pytest.raises(ValueError, match=r"X contains 1e\+39, a value too large .*column 'b', row 2"):
        forecaster().fit(frame, Y)
    with pytest.raises(ValueError, match=r"y contains 1e\+39, a value too large .*row 2, column 1"):
        forecaster().fit(X, large)
    with pytest.raises(ValueError, match=r"X contains 1e\+39, a value too large .*position \(2, 1\)"):
        forecaster().fit(X, Y).predict(large)
    with pytest.raises(ValueError, match=r"X contains 1e\+39, a value too large .*context 2, position \(1,\)"):
        forecaster().fit(X).predict(large)
    with pytest.raises(ValueError, match=r"future contains 1e\+39"):
        forecaster(known_columns=[0, 1]).fit(X).predict(X[:3], future=large[:3, None, :2])


DOUBLE = pd.DataFrame(X, columns=["a", "a", "b"])


def test_columns_of_one_name_are_read_by_their_place_and_not_in_another_order():
    for fit, call in (
        (lambda frame: generator().fit(frame), "score_samples"),
        (lambda frame: FlowAnomalyDetector(**SMALL, n_folds=2).fit(frame), "predict"),
        (lambda frame: forecaster().fit(frame), "predict"),
    ):
        model = fit(DOUBLE)
        assert len(getattr(model, call)(DOUBLE)) >= 1
        with pytest.raises(ValueError, match=r"X has the columns \['b', 'a', 'a'\]"):
            getattr(model, call)(DOUBLE.iloc[:, ::-1])


def test_columns_of_one_name_are_refused_where_a_name_has_to_tell_them_apart():
    for call in (
        lambda: forecaster().fit(DOUBLE, Y),
        lambda: forecaster().fit(DOUBLE.assign(b="text"), Y),
        lambda: FlowMatchingOverSampler(generator()).fit_resample(DOUBLE, [0] * 8 + [1] * 4),
        lambda: AugmentedRegressor(DummyRegressor(), generator()).fit(DOUBLE, Y),
    ):
        with pytest.raises(ValueError, match=r"X has columns of one name: \['a', 'a', 'b'\]"):
            call()
    with pytest.raises(ValueError, match="known_columns names 'a', but 2 columns are called so"):
        forecaster(known_columns="a").fit(DOUBLE)


def test_targets_and_conditions_without_columns_are_refused():
    for y in (np.empty((N, 0)), pd.DataFrame(index=range(N)), [[]] * N, torch.empty(N, 0)):
        for fit in (lambda y: generator().fit(X, y), lambda y: forecaster().fit(X, y)):
            with pytest.raises(ValueError, match=r"y has shape \(12, 0\): there are no (conditions|targets) in it"):
                fit(y)


def test_text_beside_weights_is_learned_with_them():
    weight = np.arange(N) % 3.0
    for table in (
        pd.DataFrame({"a": ["u", "v", "w"] * 4, "b": Y}),
        pl.DataFrame({"a": ["u", "v", "w"] * 4, "b": Y}),
        np.array([["u", 1.0], ["v", 2.0], ["w", 3.0]] * 4, dtype=object),
    ):
        for model in (generator(), FlowAnomalyDetector(**SMALL, n_folds=2)):
            model.fit(table, sample_weight=weight)
        first = generator().fit(table, sample_weight=weight).sample(40, random_state=0)
        assert "u" not in np.asarray(first)[:, 0]  # all its rows have the weight 0


def test_frames_are_no_values_of_one_column():
    model = generator().fit(pd.DataFrame(X, columns=["a", "b", "c"]))
    for value in (pd.DataFrame(X[:, :2]), pl.DataFrame({"a": Y})):
        with pytest.raises(ValueError, match=r"given value of column 'a' is a DataFrame; expected one value"):
            model.sample(N, given={"a": value})
    with pytest.raises(ValueError, match=r"given value of column 'a' has shape \(4, 3\)"):
        model.sample(N, given={"a": X[:4]})


def test_frames_of_polars_are_told_from_trajectories_and_grids():
    frame = pl.DataFrame({"a": Y, "b": Y})
    with pytest.raises(
        ValueError, match=r"trajectory 0 of X is a frame of polars, .* fit\(X, time='date', groups='id'\)"
    ):
        forecaster().fit(frame)
    with pytest.raises(ValueError, match="trajectory 1 of X is a frame of polars, which has no index"):
        forecaster().fit([pd.DataFrame({"a": Y, "b": Y}), frame])
    with pytest.raises(ValueError, match=r"features|samples of shape"):
        generator().fit(FIELDS).score_samples(frame)


def test_integers_of_128_bits_are_whole_numbers():
    frame = pl.DataFrame({"a": pl.Series([2**70 + i**2 for i in range(N)], dtype=pl.Int128), "b": Y})
    model = generator().fit(frame)
    assert model.score_samples(frame).shape == (N,)
    assert model.sample(N, random_state=0).schema == frame.schema
    far = frame.with_columns(pl.Series("a", [2**70 + 2**60 * i for i in range(N)], dtype=pl.Int128))
    with pytest.raises(ValueError, match=r"column 'a' of X holds integers beyond 2\^53"):
        generator().fit(far)


def test_as_numpy_names_what_it_cannot_turn_into_an_array():
    assert as_numpy(torch.ones(2, dtype=torch.bfloat16)).dtype == np.float32
    with pytest.raises(TypeError, match="given is a tensor"):
        as_numpy(torch.ones(2).to_sparse(), "given")
    check_readable([1, 2], "X")  # what is neither array nor tensor passes


# -- densities at atoms -----------------------------------------------------------------------------------------------


def counts(share):
    table = pd.DataFrame({"visits": RNG.gamma(2.0, size=200), "age": RNG.normal(size=200)})
    table.loc[: int(200 * share) - 1, "visits"] = 0.0
    return table


def test_a_log_density_of_a_column_with_an_atom_is_warned_of_once_and_at_the_users_line():
    table = counts(0.4)
    model = generator().fit(table)
    with pytest.warns(UserWarning, match=r"in column 'visits', 40% of the training rows have the value 0") as caught:
        model.score_samples(table)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("table", "parameters"),
    [
        (counts(0.1), {}),
        (counts(0.4).round(1).assign(visits=lambda t: t["visits"].gt(0)), {}),  # a category: log-probabilities
        (counts(0.4).round(0), {"categorical_features": ["visits", "age"]}),
        (counts(0.4), {"preprocessing": "standardize"}),
        (FIELDS.round(0), {"preprocessing": "quantile"}),
        (counts(0.4).assign(visits=1.0), {}),  # constant: no part of the density
    ],
    ids=["few ties", "booleans", "categories", "standardize", "grids", "constant"],
)
def test_other_log_densities_are_not(table, parameters):
    model = generator(**parameters).fit(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.score_samples(table)


def test_a_choice_by_density_is_no_question_for_it():
    model = generator().fit(counts(0.4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.sample(2, oversample=2, random_state=0)
        with quietly():
            model.score_samples(counts(0.4))
