"""What users of forecasters get wrong is told before training starts, by trajectory, frame and column, and harms nothing."""

import numpy as np
import pandas as pd
import pytest
from exact_forecasts import tiny, tiny_fields

from flowmatch import DistilledFlowMap, TrainingOptions

RNG = np.random.default_rng(0)
SERIES, FIELDS = RNG.normal(size=(4, 12, 2)), RNG.normal(size=(3, 8, 1, 8))
X_TABLE, Y_TABLE = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))


def frame(n=60, **columns):
    values = RNG.normal(size=(n, 3))
    return pd.DataFrame(values, columns=list("abc"), index=pd.date_range("2021-03-01", periods=n)).assign(**columns)


def replaced(array, value, *place):
    array = array.copy()
    array[place] = value
    return array


def reindexed(*rows):
    return frame().iloc[[*rows]]


def fit(*data):
    """What `refuses` is to call."""
    return lambda estimator: estimator.fit(*data)


def ragged():
    parts = np.empty(2, dtype=object)
    parts[:] = [SERIES[0], SERIES[1, :7]]
    return parts


@pytest.fixture(scope="module")
def models():
    return {
        "series": tiny().fit(SERIES),
        "windows": tiny(n_lags=3).fit(SERIES),
        "fields": tiny_fields().fit(FIELDS),
        "table": tiny().fit(X_TABLE, Y_TABLE),
        "frames": tiny(n_lags=2, calendar=None).fit(frame()),
        "calendar": tiny(n_lags=2).fit(frame()),
        "known": tiny(known_columns="c", calendar=None).fit(frame()),
        "exogenous": tiny(exogenous_columns=1).fit(SERIES),
    }


@pytest.fixture
def refuses(monkeypatch):
    """Check that a call is refused before any training, and leaves the fitted estimator as it was."""

    def refuse_training(*_, **__):
        raise AssertionError("training started")

    def check(estimator, call, message, **parameters):
        kept = {name: getattr(estimator, name) for name in parameters}
        fitted = dict(vars(estimator.set_params(**parameters)))
        try:
            with monkeypatch.context() as patched:
                patched.setattr("flowmatch.training.train", refuse_training)
                with pytest.raises(ValueError, match=message):
                    call(estimator)
            assert vars(estimator).keys() == fitted.keys()
            for name, value in fitted.items():
                assert vars(estimator)[name] is value, name
        finally:
            estimator.set_params(**kept)

    return check


TRAJECTORIES = {
    "too_short": ([SERIES[0, :1], SERIES[1, :1]], r"trajectory 0 of X has 1 states, but a window of n_lags and horizon needs 2"),
    "other_columns": ([SERIES[0], SERIES[1, :, :1]], r"trajectory 0 has \(2,\) and trajectory 1 has \(1,\)"),
    "other_grids": ([FIELDS[0], FIELDS[1, ..., :4]], r"trajectory 0 has \(1, 8\) and trajectory 1 has \(1, 4\)"),
    "other_channels": ([FIELDS[0], FIELDS[1].repeat(2, axis=1)], r"trajectory 0 has \(1, 8\) and trajectory 1 has \(2, 8\)"),
    "nothing_but_nan": (SERIES * np.nan, r"44 of 44 windows lack values: .*the first: the forecast of trajectory 0, frame 1\)\. None is left"),
    "no_value_of_a_target": (SERIES * [1, np.nan], r"column 1 is to be forecast, but has no value 1 step\(s\) ahead"),
    "infinity": (replaced(FIELDS, -np.inf, 1, 7, 0, 5), r"X contains -inf: trajectory 1, frame 7, position \(0, 5\)"),
    "beyond_float32": (replaced(SERIES, 1e39, 0, 0, 0), r"X contains 1e\+39: trajectory 0, frame 0"),
    "infinity_in_a_frame": ([frame(), frame(b=np.inf)], r"X contains inf: trajectory 1, frame 0, column 'b'"),
    "text_column": (frame(b="red"), r"column 'b' of trajectory 0 has dtype (object|str)"),
    "category_column": ([frame(), frame(b=pd.Categorical(["u"] * 60))], r"column 'b' of trajectory 1 has dtype category"),
    "other_names": ([frame(), frame().rename(columns={"a": "z"})], r"same columns in one order: trajectory 0 has \['a', 'b', 'c'\]"),
    "unsorted": (reindexed(0, 2, 1, 3), r"times of trajectory 0 must increase: row 2 has 2021-03-02"),
    "duplicate_times": ([frame(), reindexed(0, 1, 1, 2)], r"times of trajectory 1 must increase: row 2 has 2021-03-02"),
    "no_time": (frame().set_index(frame().index.where(np.arange(60) != 5)), r"times of trajectory 0 have a gap: row 5 has NaT"),
    "empty": (np.empty((0, 3)), r"trajectory 0 of X has shape \(0, 3\)"),
    "empty_list": ([], r"X holds no trajectories"),
    "no_trajectories": (np.empty((0, 3, 2)), r"X holds no trajectories"),
    "an_empty_one": ([SERIES[0], SERIES[1, :0]], r"trajectory 1 of X has shape \(0, 2\)"),
    "no_points": (np.empty((2, 5, 1, 0)), r"trajectory 0 of X has shape \(5, 1, 0\)"),
    "ragged_objects": (ragged(), r"trajectory 0 of X has dtype object; .* unequal lengths in a list"),
    "complex": (SERIES * 1j, r"dtype complex128; real numbers"),
    "strings": (["ab", "cd"], r"trajectory 0 of X has dtype <U2"),
    "a_number": (3.0, r"X is a float; expected trajectories"),
    "no_dimension": (np.array(3.0), r"expected trajectories: a list of arrays"),
    "a_dict": ({"a": [1, 2]}, r"X is a dict; expected trajectories"),
    "nothing": (None, r"X is a NoneType; expected trajectories"),
    "a_number_among_them": ([SERIES[0], 3.0], r"trajectory 1 of X is the single number 3.0"),
    "one_window": (SERIES[0, :2], r"1 sample\(s\), that is window\(s\), while a minimum of 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", TRAJECTORIES)
def test_bad_trajectories_are_refused_by_name(models, refuses, case):
    X, message = TRAJECTORIES[case]
    refuses(models["series"], fit(X), message)


PAIRS = {
    "lengths": (X_TABLE, Y_TABLE[:5], r"inconsistent numbers of samples: \[20, 5\]", {}),
    "lengths_of_fields": (FIELDS[0], FIELDS[1, :5], r"X has 8 contexts, but y has 5 targets", {}),
    "grids": (FIELDS[0], FIELDS[1, ..., :4], r"X has shape \(8, 1, 8\) and y has shape \(8, 1, 4\); .* fields on one grid", {}),
    "fields_to_numbers": (FIELDS[0], np.arange(8.0), r"X has shape \(8, 1, 8\) and y has shape \(8,\)", {}),
    "lags": (SERIES[:, :2], SERIES[:, 2], r"with n_lags=3 and horizon=1, X must be \(n, 3, \*state\)", {"n_lags": 3}),
    "horizon": (X_TABLE, Y_TABLE[:, None], r"horizon=2, X must be \(n, \*state\) and y \(n, 2, \*state\)", {"horizon": 2}),
    "nan": (X_TABLE, Y_TABLE * [np.nan, 1], r"column 0 of y has no value in any row", {}),
    "nothing": (X_TABLE, Y_TABLE * np.nan, r"20 of 20 windows lack values: .* the forecast of row 0\)\. None is left", {}),
    "infinity": (X_TABLE, replaced(Y_TABLE, np.inf, 3, 1), r"Input y contains infinity: row 3, column 1", {}),
    "nan_in_fields": (FIELDS[0], FIELDS[0] * np.nan, r"8 of 8 windows lack values", {}),
    "exogenous": (X_TABLE, Y_TABLE, r"exogenous_columns and known_columns are for trajectories", {"exogenous_columns": 1}),
    "calendar": (X_TABLE, Y_TABLE, r"calendar='day' is for series", {"calendar": "day"}),
}  # fmt: skip


@pytest.mark.parametrize("case", PAIRS)
def test_bad_pairs_are_refused(models, refuses, case):
    X, y, message, parameters = PAIRS[case]
    refuses(models["table"], fit(X, y), message, **parameters)


PARAMETERS = {
    "n_lags": [({"n_lags": 0}, "n_lags must be an integer >= 1, got 0"), ({"n_lags": 1.5}, "n_lags must be an integer")],
    "long_window": [({"n_lags": 9, "horizon": 4}, "trajectory 0 of X has 12 states, but a window of .* needs 13")],
    "horizon": [({"horizon": 0}, "horizon must be an integer >= 1, got 0")],
    "n_samples": [({"n_samples": 1}, "n_samples must be an integer >= 2, got 1")],
    "target": [({"target": "change"}, "unknown target 'change'.*'residual', 'state'")],
    "context_noise": [({"context_noise": -0.1}, r"context_noise must be a number in \[0, inf\), got -0.1")],
    "boundary": [
        ({"boundary": "round"}, "unknown boundary 'round'"),
        ({"boundary": 3}, r"boundary must be one of .* or a sequence"),
        ({"boundary": ("wall",)}, r"boundary=\('wall',\) names 1 axes, but states have the grid \(\)"),
    ],
    "exogenous_columns": [
        ({"exogenous_columns": 2}, "exogenous_columns names 2, but there are 2 columns"),
        ({"exogenous_columns": "z"}, "exogenous_columns names 'z', but there are 2 columns"),
        ({"exogenous_columns": 1.5}, "exogenous_columns names 1.5"),
        ({"exogenous_columns": True}, "exogenous_columns names True"),
        ({"exogenous_columns": [0, -2]}, r"exogenous_columns=\[0, -2\] names a column twice"),
        ({"exogenous_columns": [0, 1]}, "name all columns: none is left to forecast"),
        ({"exogenous_columns": 0, "known_columns": 1}, "name all columns"),
        ({"exogenous_columns": 1, "known_columns": 1}, "column 1 is in exogenous_columns and in known_columns"),
    ],
    "calendar": [
        ({"calendar": "month"}, "unknown calendar 'month'.*'year', 'week', 'day'"),
        ({"calendar": 7}, "calendar must be one of"),
        ({"calendar": ["week"]}, r"calendar=\['week'\] needs DataFrames with a DatetimeIndex"),
    ],
    "n_steps": [({"n_steps": 0}, "n_steps must be an integer")],
}  # fmt: skip


@pytest.mark.parametrize("case", PARAMETERS)
def test_bad_parameters_are_refused_by_name(models, refuses, case):
    for parameters, message in PARAMETERS[case]:
        refuses(models["series"], fit(SERIES), message, **parameters)


def test_parameters_of_series_are_refused_for_fields_and_those_of_frames_name_their_columns(models, refuses):
    refuses(
        models["fields"],
        fit(FIELDS),
        r"boundary=\('wall', 'wall'\) names 2 axes, .* grid \(8,\)",
        boundary=("wall",) * 2,
    )
    refuses(
        models["fields"],
        fit(FIELDS),
        r"calendar='week' is for series, but states of X have the shape \(1, 8\)",
        calendar="week",
    )
    both = {"exogenous_columns": "b", "known_columns": ["c", "b"]}
    refuses(models["frames"], fit(frame()), r"column 'b' is in exogenous_columns and in known_columns", **both)
    refuses(
        models["frames"],
        fit(frame()),
        r"known_columns names 'z', but the columns are \['a', 'b', 'c'\]",
        known_columns="z",
    )


def test_a_fit_goes_on_with_what_it_began(models, refuses):
    go_on = {"warm_start": True}
    refuses(
        models["series"], fit(SERIES), "n_lags was 1 in the fit that this one goes on from, and is 2", n_lags=2, **go_on
    )
    refuses(
        models["series"], fit(SERIES[..., :1]), r"states of shape \(1,\), but the model was fitted to \(2,\)", **go_on
    )
    refuses(models["fields"], fit(FIELDS[..., :4]), r"states of shape \(1, 4\), .* fitted to \(1, 8\)", **go_on)
    refuses(
        models["table"], fit(X_TABLE[:, :2], Y_TABLE), "2 features, but ConditionalForecaster is expecting 3", **go_on
    )
    refuses(
        models["table"],
        fit(X_TABLE, Y_TABLE[:, 0]),
        r"targets of shape \(\), but the model was fitted to \(3,\) and \(2,\)",
        **go_on,
    )


CONTEXTS = {
    "resolution": ("fields", FIELDS[:, 0, :, :4], r"X has shape \(3, 1, 4\); expected contexts of shape \(n, 1, 8\)"),
    "channels": ("fields", FIELDS[:, 0].repeat(2, axis=1), r"X has shape \(3, 2, 8\); expected contexts of shape \(n, 1, 8\)"),
    "one_context": ("fields", FIELDS[0, 0], r"X has shape \(1, 8\); expected"),
    "short": ("windows", SERIES[:, :2], r"X has shape \(4, 2, 2\); expected contexts of shape \(n, 3, 2\)"),
    "short_history": ("windows", [SERIES[0], SERIES[1, :2]], r"history 1 of X has 2 states; a context needs 3"),
    "columns": ("windows", SERIES[:, :3, :1], r"X has shape \(4, 3, 1\); expected"),
    "features": ("table", X_TABLE[:, :2], r"X has 2 features, but ConditionalForecaster is expecting 3"),
    "nan": ("windows", replaced(SERIES[:, :3], np.nan, 1, 2, 0), r"X contains NaN: context 1, lag -1, position \(0,\) of the state\. In training this column lacked no values"),
    "nan_in_a_history": ("windows", [SERIES[0], replaced(SERIES[1], np.nan, 10, 0)], r"X contains NaN: history 1, frame 10"),
    "text": ("windows", np.full((2, 3, 2), "x"), r"X has dtype <U1; expected real numbers"),
    "ragged": ("windows", [[1.0, 2.0], [3.0]], r"X is a list of unequal parts; expected contexts of shape \(n, 3, 2\)"),
    "empty": ("windows", np.empty((0, 3, 2)), r"X has shape \(0, 3, 2\); expected"),
    "empty_list": ("windows", [], r"X has shape \(0,\); expected"),
    "a_number": ("windows", 3.0, r"X has shape \(\); expected"),
    "a_dict": ("windows", {"a": [1.0]}, r"X has dtype object; expected real numbers"),
    "nothing": ("windows", None, r"X has dtype object; expected real numbers"),
    "column_missing": ("frames", frame()[["a", "b"]], r"X has the columns \['a', 'b'\], .*\['c'\] are missing"),
    "column_order": ("frames", frame()[["b", "a", "c"]], r"fitted to \['a', 'b', 'c'\], in that order"),
    "arrays_for_a_calendar": ("calendar", frame().to_numpy()[None, -2:], r"the model uses the calendar \(week\): pass DataFrames"),
    "no_index_for_a_calendar": ("calendar", [frame(), frame().reset_index(drop=True)], r"history 1 of X has no DatetimeIndex"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTEXTS)
def test_bad_contexts_are_refused(models, refuses, case):
    name, X, message = CONTEXTS[case]
    for call in (lambda f: f.predict(X), lambda f: f.sample(X), lambda f: f.rollout(X, 1)):
        refuses(models[name], call, message)


def test_what_is_known_ahead_must_be_told(models, refuses):
    X, known, n = frame()[:50], models["known"], {"n_steps": 3}
    ahead = frame()[["c"]][50:]
    for future, message in {
        "missing": (None, r"future is missing: the columns \['c'\] are known ahead; pass them for 3 step"),
        "column": (frame()[["a"]][50:], r"future 0 lacks the columns \['c'\]"),
        "short": (
            ahead[:2],
            r"2 row\(s\) from 2021-04-20 .* but .* come 2021-04-20 .* to 2021-04-22 .*: 2021-04-22|3 step",
        ),
        "short_array": (ahead[:2].to_numpy()[None], r"future has shape \(1, 2, 1\); expected .* \(1, 3, 1\): 3 step"),
        "unequal": ([[[0.0]], [[0.0], [1.0]]], r"future cannot be read .*expected .* \(1, 3, 1\)"),
        "columns": (np.zeros((1, 3, 2)), r"future has shape \(1, 3, 2\); expected"),
        "flat": (np.zeros((3, 1)), r"future has shape \(3, 1\); expected"),
        "nan": (np.full((1, 3, 1), np.nan), r"future contains NaN; expected"),
        "text": (frame(c="red")[["c"]][50:], r"future cannot be read .*expected finite numbers"),
    }.values():
        refuses(known, lambda forecaster, future=future: forecaster.rollout(X, future=future, **n), message)
    refuses(models["frames"], lambda f: f.predict(X, future=np.zeros((1, 1, 1))), "fitted without known_columns")


def test_states_are_only_carried_on_if_all_columns_are(models, refuses):
    X = SERIES[:, -1]
    assert models["exogenous"].rollout(X, 1).shape == (1, 4, 1, 1)
    message = r"rollout of 3 steps .* only 1 of 2 are forecast and 0 known ahead\. Name the others in known_columns"
    refuses(models["exogenous"], lambda forecaster: forecaster.rollout(X, 3), message)
    refuses(
        models["table"], lambda forecaster: forecaster.rollout(X_TABLE, 2), r"rollout of 2 steps needs every column"
    )


def test_bad_arguments_are_named(models, refuses):
    X, forecaster = SERIES[:, -1], models["series"]
    for call, message in (
        (lambda f: f.predict_quantiles(X, (0.1, 1.2)), r"quantiles must be a number in \[0, 1\], got 1.2"),
        (lambda f: f.predict_quantiles(X, "median"), "quantiles must be a number"),
        (lambda f: f.predict_interval(X, 1.0), r"coverage must be a number in \(0, 1\), got 1.0"),
        (lambda f: f.predict_interval(X, 0.91), "of n_samples=20 draws: set n_samples=22 or more"),
        (lambda f: f.sample(X, 0), "n_samples must be an integer >= 1, got 0"),
        (lambda f: f.sample(X, n_steps=0), "n_steps must be an integer"),
        (lambda f: f.sample(X, batch_size=0), "batch_size must be an integer"),
        (lambda f: f.rollout(X, 0), "n_steps must be an integer >= 1, got 0"),
        (lambda f: f.sample(X, random_state="x"), "random_state must be"),
    ):
        refuses(forecaster, call, message)


SCORED = {
    "grid": ("fields", (FIELDS[0, ..., :4], FIELDS[0, ..., :4])),
    "grid_of_trajectories": ("fields", (FIELDS[..., :4],)),
    "no_y": ("table", (X_TABLE,)),
    "columns": ("table", (X_TABLE, Y_TABLE[:, :1])),
    "short": ("windows", (SERIES[:, :3],)),
}


@pytest.mark.parametrize("case", SCORED)
def test_scores_refuse_what_the_model_was_not_fitted_to(models, refuses, case):
    name, data = SCORED[case]
    for call in (lambda f: f.score(*data), lambda f: f.crps(*data)):
        refuses(models[name], call, r"the model was fitted to|trajectory 0 of X has 3 states")


def test_students_take_trajectories_and_no_weights(models, refuses):
    student = DistilledFlowMap(models["series"], max_iter=1, n_pairs=10, random_state=0).fit(SERIES)
    message = "sample_weight was given, but a ConditionalForecaster takes none"
    refuses(student, fit(SERIES, None, np.ones(4)), message)
    unfitted = DistilledFlowMap(tiny(), max_iter=1, n_pairs=10)
    refuses(unfitted, fit(SERIES, None, np.ones(4)), message)
    refuses(student, fit(), "keeps none of its contexts: pass X")
    refuses(student, fit(SERIES[..., :1]), r"states of shape \(1,\), but the model was fitted to \(2,\)")


def test_too_little_to_hold_any_out_is_refused(models, refuses):
    options = TrainingOptions(early_stopping=True)
    message = "holding out 1 of 6 windows leaves none to train on"
    refuses(models["series"], fit(RNG.normal(size=(16, 2))), message, n_lags=10, training=options)
