"""Anomalies in tables as people have them: categories, booleans, dates, and cells that are missing."""

import copy

import numpy as np
import pandas as pd
import pytest

import flowmatch
from flowmatch import FlowAnomalyDetector
from flowmatch.anomaly import Gaps

SMALL = {"network": flowmatch.networks.MLP(width=16, depth=1), "max_iter": 60, "random_state": 0}
pytestmark = pytest.mark.filterwarnings("ignore:.*held-out rows cannot promise")


def machines(n, seed, broken=False):
    """The temperature follows from the machine and its load; of broken rows it is that of another machine."""
    random = np.random.RandomState(seed)
    kind, load = random.randint(3, size=n), random.rand(n)
    day = pd.Timestamp("2024-03-01") + pd.to_timedelta(random.randint(90, size=n), unit="D")
    names = np.array(["lathe", "mill", "press"])[(kind + broken) % 3]
    warm = 20 + 10 * kind + 5 * load + 0.3 * random.normal(size=n)
    return pd.DataFrame({"machine": names, "load": load, "warm": warm, "cooled": load > 0.3, "day": day})


def with_holes(table, share, seed):
    random, holed = np.random.RandomState(seed), table.copy()
    for name in table.columns:
        holed[name] = holed[name].astype("boolean") if table[name].dtype == bool else holed[name]
        holed.loc[random.rand(len(table)) < share, name] = None
    return holed


TRAIN, NEW, BROKEN = machines(240, 0), machines(200, 1), machines(60, 2, broken=True)
HOLED = with_holes(NEW, 0.1, 3)


@pytest.fixture(scope="module", params=["whole", "holed"])
def detector(request):
    train = TRAIN if request.param == "whole" else with_holes(TRAIN, 0.1, 4)
    return FlowAnomalyDetector(n_folds=1, **SMALL).fit(train)


def test_a_category_that_does_not_go_with_the_numbers_is_found(detector):
    assert detector.score_samples(BROKEN).max() < np.quantile(detector.score_samples(NEW), 0.02)


def test_false_alarms_stay_near_the_promise_where_cells_are_missing(detector):
    assert np.mean(detector.predict(HOLED) == -1) < 0.1
    assert np.mean(detector.predict(with_holes(BROKEN, 0.1, 5)) == -1) > 0.7  # .81 of them still show both columns


def test_explanations_have_one_number_a_column_and_add_up(detector):
    for table in (BROKEN, HOLED):
        explained = detector.explain(table)
        assert list(explained.columns) == list(table.columns)
        np.testing.assert_allclose(explained.sum(axis=1), -detector.score_samples(table), rtol=1e-9)
    assert {"machine", "warm"} == set(detector.explain(BROKEN).mean().nlargest(2).index)


def test_a_missing_cell_adds_what_it_adds_to_a_normal_row(detector):
    explained = detector.explain(HOLED)
    absent = HOLED.isna()
    for name in TRAIN.columns:
        assert explained[name][absent[name]].nunique() == 1
    nothing = pd.DataFrame([[None] * 5], columns=TRAIN.columns)
    assert detector.predict(nothing) == 1
    typical = [explained[name][absent[name]].iloc[0] for name in TRAIN.columns]
    np.testing.assert_allclose(detector.explain(nothing).to_numpy()[0], typical)
    assert sum(typical) == pytest.approx(-detector.score_samples(NEW).mean(), rel=0.3)


def test_a_rows_score_does_not_depend_on_the_others(detector):
    rows = np.flatnonzero(HOLED.isna().any(axis=1))[:8]
    alone = [detector.score_samples(HOLED.iloc[[row]])[0] for row in rows]
    np.testing.assert_allclose(alone, detector.score_samples(HOLED)[rows], rtol=1e-6)


def test_files_keep_what_a_table_was(detector, tmp_path):
    detector.save(tmp_path / "detector.safetensors")
    loaded = flowmatch.load(tmp_path / "detector.safetensors")
    for table in (BROKEN, HOLED):
        np.testing.assert_array_equal(loaded.score_samples(table), detector.score_samples(table))
    loaded.partial_fit(HOLED)
    assert np.isfinite(loaded.score_samples(HOLED)).all()


def test_what_training_has_not_seen_is_refused_by_name(detector):
    saw = NEW.replace({"machine": {"press": "saw"}})
    assert (detector.predict(saw)[(NEW["machine"] == "press").to_numpy()] == -1).all()
    with pytest.raises(ValueError, match="column 'machine' of X.*'saw'"):
        copy.copy(detector).set_params(unknown_categories="error").predict(saw)
    with pytest.raises(ValueError, match="feature names"):
        detector.predict(NEW[NEW.columns[::-1]])


@pytest.mark.parametrize("score", ["likelihood", "reconstruction", flowmatch.anomaly.Denoising(n_noises=1)])
def test_other_scores_take_such_tables_too(score):
    detector = FlowAnomalyDetector(method=score, n_folds=1, **{**SMALL, "max_iter": 20}, n_steps=2)
    detector.fit(with_holes(TRAIN[:100], 0.2, 6))
    assert np.isfinite(detector.score_samples(HOLED[:50])).all()
    np.testing.assert_allclose(detector.explain(HOLED[:50]).sum(axis=1), -detector.score_samples(HOLED[:50]))


@pytest.mark.slow
def test_classes_weights_and_a_share_of_outliers_go_with_holes():
    table, labels = with_holes(TRAIN[["load", "warm", "cooled"]], 0.1, 7), TRAIN["machine"]
    weight = np.arange(len(table)) % 3
    fitted = FlowAnomalyDetector(method="one_step", n_folds=1, trim=0.1, **SMALL).fit(table, labels, weight)
    assert np.isfinite(fitted.score_samples(table)).all()
    found = FlowAnomalyDetector(method="one_step", contamination=0.1, **SMALL).fit_predict(table)
    assert np.mean(found == -1) == pytest.approx(0.1, abs=0.01)


def test_numbers_that_are_codes_can_be_named_as_categories():
    random = np.random.RandomState(0)
    code = random.randint(3, size=300)
    X = np.column_stack([code, np.array([0.0, 5.0, 1.0])[code] + 0.1 * random.normal(size=300)])
    detector = FlowAnomalyDetector(n_folds=1, categorical_features=[0], **SMALL).fit(X)
    assert detector.predict([[1.0, 5.0], [1.0, 1.0], [1.0, 0.0]]).tolist() == [1, -1, -1]
    assert detector.predict([[1.5, 5.0]]) == -1
    with pytest.raises(ValueError, match="column 0 of X"):
        detector.set_params(unknown_categories="error").predict([[1.5, 5.0]])


def test_another_value_in_a_constant_column_is_found_beside_holes():
    table = with_holes(TRAIN[["load", "warm"]], 0.2, 8).assign(unit="C", built=1990.0)
    detector = FlowAnomalyDetector(method="one_step", n_folds=1, **{**SMALL, "max_iter": 10}).fit(table)
    moved = pd.concat([table.iloc[:3].assign(built=1991.0), table.iloc[:3].assign(built=np.nan)])
    assert detector.predict(moved).tolist()[:3] == [-1, -1, -1]
    assert (detector.explain(moved)["built"] > 0).tolist() == [True] * 3 + [False] * 3


def test_copies_with_holes_stay_on_one_side_of_the_split():
    from flowmatch.anomaly.held_out import split_rows
    from flowmatch.preprocessing import SampleRows

    X = np.repeat(np.random.RandomState(0).normal(size=(20, 3)), 3, axis=0)
    X[::3, 1] = X[1::3, 1] = X[2::3, 1] = np.nan
    for kept, held in split_rows(SampleRows(X), 5, None, np.random.RandomState(0)):
        assert not set(X[kept, 0]) & set(X[held, 0])


# -- expected values --------------------------------------------------------------------------------------------------


def test_expected_values_follow_a_line_and_a_bend():
    random = np.random.RandomState(0)
    x = random.normal(size=1000)
    codes = np.column_stack([x, 2 * x + 0.01 * random.normal(size=1000), np.abs(x)])
    holed = codes[:200].copy()
    holed[:, 1:] = np.nan
    filled = Gaps.fit(codes[200:]).fill(holed)
    np.testing.assert_array_equal(filled[:, 0], holed[:, 0])
    inner = np.abs(holed[:, 0]) < 2
    assert np.abs(filled - codes[:200])[inner].max() < 0.15
    assert np.sqrt(np.mean((filled - codes[:200])[inner] ** 2)) < 0.03


def test_expected_values_carry_over_what_the_nearest_rows_leave():
    x = np.random.RandomState(0).normal(size=(400, 4))
    codes = np.column_stack([x, x.sum(axis=1)])
    holed = codes[200:].copy()
    holed[:, 4] = np.nan
    filled = Gaps.fit(codes[:200]).fill(holed)[:, 4]
    assert np.sqrt(np.mean((filled - codes[200:, 4]) ** 2)) < 0.2  # the mean of the nearest rows is off by .5


def test_expected_values_of_a_normal_law_are_its_conditional_means():
    random = np.random.RandomState(0)
    mixing = np.array([[1.0, 0.0, 0.0], [0.7, 0.5, 0.0], [-0.4, 0.6, 0.5]])
    codes = random.normal(size=(3000, 3)) @ mixing.T
    covariance = mixing @ mixing.T
    holed = codes[2000:].copy()
    holed[:, 2] = np.nan
    expected = holed[:, :2] @ np.linalg.solve(covariance[:2, :2], covariance[:2, 2])
    filled = Gaps.fit(codes[:2000]).fill(holed)[:, 2]
    assert np.sqrt(np.mean((filled - expected) ** 2)) < 1.5 * 0.5 / np.sqrt(10)  # .5 is left, and ten rows are averaged


@pytest.mark.parametrize("n_missing", [1, 2, 3, 5, 6])
def test_expected_values_are_the_regression_on_what_is_known(n_missing):
    """Whether the system of the known codes is solved or that of the missing ones."""
    random = np.random.RandomState(0)
    codes = random.normal(size=(300, 6)) @ random.normal(size=(6, 6))
    gaps = Gaps.fit(codes[:200])
    holed = codes[200:].copy()
    holed[np.arange(100)[:, None], random.rand(100, 6).argsort(axis=1)[:, :n_missing]] = np.nan
    filled = gaps.fill(holed)
    reference = gaps.reference.astype(np.float64)
    for row, found in zip(holed, filled, strict=True):
        known, missing = ~np.isnan(row), np.isnan(row)
        distance = np.square(row[known] - reference[:, known]).sum(axis=1)
        near = reference[np.argsort(distance, kind="stable")[:10]].mean(axis=0)
        slope = gaps.spread[np.ix_(missing, known)] @ np.linalg.inv(gaps.spread[np.ix_(known, known)])
        np.testing.assert_allclose(found[missing], near[missing] + slope @ (row - near)[known], atol=1e-9)
        np.testing.assert_array_equal(found[known], row[known])


def test_of_equally_near_rows_the_first_are_taken_wherever_a_row_stands():
    reference = np.repeat(np.arange(30.0)[:, None] // 10, 2, axis=1) + np.arange(30)[:, None] * [0.0, 1.0]
    gaps = Gaps.fit(reference)
    holed = np.column_stack([np.repeat([0.0, 1.0, 0.5, 5.0], 5), np.full(20, np.nan)])
    filled = gaps.fill(holed)
    for at, row in enumerate(holed):
        order = np.argsort(np.square(gaps.reference[:, 0] - row[0]), kind="stable")[:10]
        near = gaps.reference[order].mean(axis=0)
        slope = gaps.spread[1, 0] / gaps.spread[0, 0]
        assert filled[at, 1] == pytest.approx(near[1] + slope * (row[0] - near[0]))


def test_codes_with_gaps_can_be_learned_from():
    random = np.random.RandomState(0)
    x = random.normal(size=600)
    codes = np.column_stack([x, x, -x])
    holed = np.where(random.rand(600, 3) < 0.2, np.nan, codes)
    gaps = Gaps.fit(holed)
    assert np.isfinite(gaps.reference).all()
    some = ~np.isnan(holed).all(axis=1)
    assert np.sqrt(np.mean((gaps.fill(holed) - codes)[some] ** 2)) < 0.1
