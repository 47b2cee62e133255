"""Measures between samples, judged by closed forms, SciPy and symmetries."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch

import flowmatch.metrics._distances
from flowmatch.metrics import (
    classifier_two_sample_test,
    copy_check,
    energy_distance,
    membership_attack,
    precision_recall_density_coverage,
    report,
    sliced_wasserstein,
    wasserstein,
)

MEASURES = {
    "sliced_wasserstein": lambda X, Y: sliced_wasserstein(X, Y, random_state=0),
    "wasserstein": wasserstein,
    "energy_distance": energy_distance,
    "precision_recall_density_coverage": precision_recall_density_coverage,
    "classifier_two_sample_test": classifier_two_sample_test,
    "copy_check": copy_check,
}
every_measure = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
every_quick_measure = pytest.mark.parametrize(
    "measure", [measure for name, measure in MEASURES.items() if name != "classifier_two_sample_test"]
)


def normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


# Transport


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_wasserstein_between_a_sample_and_its_shift_is_the_shift(p):
    X = normal(60, 3)
    assert wasserstein(X, X + [1.0, 2.0, 2.0], p=p) == pytest.approx(3.0)
    assert wasserstein(X, X + [1.0, 2.0, 2.0], p=p, metric="cityblock") == pytest.approx(5.0)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 20), (30, 20), (41, 30)])
def test_wasserstein_in_one_dimension_is_scipys(n, m):
    X, Y = normal(n, 1), 2 * normal(m, 1, seed=1) + 0.3
    expected = scipy.stats.wasserstein_distance(X[:, 0], Y[:, 0])
    assert wasserstein(X, Y) == pytest.approx(expected, rel=1e-7)
    assert sliced_wasserstein(X, Y, p=1, n_projections=3) == pytest.approx(expected)


@pytest.mark.parametrize("p", [1, 2])
def test_unequal_sizes_agree_with_rows_repeated_to_equal_sizes(p):
    X, Y = normal(21, 2), 1e4 * normal(10, 2, seed=1)  # lcm 210: the linear programme
    X_repeated, Y_repeated = np.repeat(X, 10, axis=0), np.repeat(Y, 21, axis=0)
    assert wasserstein(X, Y, p=p) == pytest.approx(wasserstein(X_repeated, Y_repeated, p=p), rel=1e-8)
    sliced, sliced_repeated = (
        sliced_wasserstein(*pair, p=p, random_state=0) for pair in ((X, Y), (X_repeated, Y_repeated))
    )
    assert sliced == pytest.approx(sliced_repeated)


@pytest.mark.parametrize("d", [1, 2, 8])
def test_sliced_wasserstein_of_a_shift_has_its_closed_form(d):
    X = normal(50, d)
    shift = np.arange(1.0, d + 1)
    distance = sliced_wasserstein(X, X + shift, n_projections=20_000, random_state=0)
    assert distance == pytest.approx(np.linalg.norm(shift) / np.sqrt(d), rel=0.02)


def test_sliced_wasserstein_between_two_normal_distributions_approaches_its_closed_form():
    X, Y = normal(6000, 2), 3 * normal(5000, 2, seed=1) + [2.0, 0.0]
    expected = np.sqrt((3 - 1) ** 2 + 2.0**2 / 2)  # Bures along each direction, shift |s|^2 / d on average
    assert sliced_wasserstein(X, Y, random_state=0) == pytest.approx(expected, rel=0.03)


def test_sliced_wasserstein_does_not_depend_on_the_block_size(monkeypatch):
    X, Y = normal(30, 2), normal(20, 2, seed=1)
    whole = sliced_wasserstein(X, Y, random_state=0)
    monkeypatch.setattr("flowmatch.metrics.transport.BLOCK_ENTRIES", 100)
    assert sliced_wasserstein(X, Y, random_state=0) == pytest.approx(whole)


# Energy


def test_energy_distance_in_one_dimension_is_the_square_of_scipys():
    X, Y = normal(80, 1), 2 * normal(50, 1, seed=1) + 0.3
    assert energy_distance(X, Y) == pytest.approx(scipy.stats.energy_distance(X[:, 0], Y[:, 0]) ** 2)


def test_energy_distance_of_equal_samples_is_zero_and_of_far_ones_twice_their_distance():
    X = normal(100, 4)
    assert energy_distance(X, X[::-1]) == pytest.approx(0.0, abs=1e-12)
    assert energy_distance(X, X + [1e6, 0, 0, 0]) == pytest.approx(2e6, rel=1e-4)


def test_blocks_of_distances_do_not_change_the_measures(monkeypatch):
    X, Y = normal(70, 2), normal(50, 2, seed=1)
    measures = (energy_distance, precision_recall_density_coverage, lambda X, Y: copy_check(X, Y, Y + 1))
    whole = [measure(X, Y) for measure in measures]
    monkeypatch.setattr(flowmatch.metrics._distances, "BLOCK_ENTRIES", 210)
    assert [measure(X, Y) for measure in measures] == [pytest.approx(value) for value in whole]


# Precision, recall, density, coverage


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("kind", ["normal", "ties", "copies", "far", "overflowing"])
def test_near_rows_are_those_of_all_distances(kind, k, monkeypatch):
    monkeypatch.setattr(flowmatch.metrics._distances, "BLOCK_ENTRIES", 150)
    X, Y = normal(40, 4, seed=1), normal(50, 4)
    if kind == "ties":
        X, Y = np.round(X), np.round(Y)
    elif kind == "copies":
        X, Y = Y[:40], Y + 1e6  # products lose digits far from the center of both
        X = X + 1e6
    elif kind == "far":
        X[0], Y[0] = 1e9, -1e12
    elif kind == "overflowing":
        Y[3] = 1e200
    with np.errstate(over="ignore", invalid="ignore"):
        blocks = list(flowmatch.metrics._distances.near_rows(X, Y, k))
    rows, neighbors, distances = map(np.concatenate, zip(*blocks, strict=True))
    whole = scipy.spatial.distance.cdist(X, Y)
    np.testing.assert_allclose(distances, whole[rows, neighbors], rtol=1e-12)
    farthest = np.partition(whole, k, axis=1)[:, k]
    found = np.zeros(whole.shape, dtype=bool)
    found[rows, neighbors] = True
    assert found[whole <= farthest[:, None] * (1 + 1e-9)].all()  # ties too
    assert found.sum() < 0.6 * found.size or kind == "overflowing"


def test_distances_of_neighbors_keep_no_blocks():
    rows = normal(3000, 2)
    tracemalloc.start()
    try:
        flowmatch.metrics._distances.neighbor_distance(rows, normal(20_000, 2), 0)
        assert tracemalloc.get_traced_memory()[1] < 4 * 8 * flowmatch.metrics._distances.BLOCK_ENTRIES
        copy_check(normal(20_000, 2), rows)
        membership_attack(normal(3000, 2), normal(20_000, 2), rows)
        assert tracemalloc.get_traced_memory()[1] < 6 * 8 * flowmatch.metrics._distances.BLOCK_ENTRIES
    finally:
        tracemalloc.stop()


def test_identical_samples_score_one_and_disjoint_ones_zero():
    X = normal(200, 3)
    assert precision_recall_density_coverage(X, X) == (1, 1, 1, 1)
    assert precision_recall_density_coverage(X, X + 100) == (0, 0, 0, 0)


def test_repeated_rows_lie_in_their_own_ball():
    X = np.repeat(np.eye(3), 10, axis=0)
    scores = precision_recall_density_coverage(X, X)
    assert (scores.precision, scores.recall, scores.coverage) == (1, 1, 1)


def test_a_missing_mode_lowers_recall_and_coverage_but_not_precision():
    real = np.concatenate([normal(200, 2), normal(200, 2, seed=1) + 50])
    scores = precision_recall_density_coverage(real, normal(200, 2, seed=2))
    assert scores.precision > 0.9
    assert scores.density > 0.9
    assert 0.4 < scores.recall < 0.5
    assert 0.4 < scores.coverage <= 0.5


def test_rows_off_the_data_lower_precision_and_density_but_not_coverage():
    synthetic = np.concatenate([normal(400, 2, seed=1), normal(400, 2, seed=2) + 50])
    scores = precision_recall_density_coverage(normal(400, 2), synthetic)
    assert 0.45 < scores.precision <= 0.5
    assert 0.4 < scores.density < 0.6
    assert scores.coverage > 0.9


@pytest.mark.parametrize("k", [1, 3])
def test_fresh_rows_of_one_distribution_have_density_one_and_cover_all_but_two_to_the_minus_k(k):
    scores = precision_recall_density_coverage(normal(2000, 2), normal(2000, 2, seed=1), n_neighbors=k)
    assert scores.density == pytest.approx(1, abs=0.07)
    assert scores.coverage == pytest.approx(1 - 2.0**-k, abs=0.04)


# Classifier two-sample test


def test_classifiers_cannot_tell_two_samples_of_one_distribution_and_always_tell_far_ones():
    X, Y = normal(200, 2), normal(200, 2, seed=1)
    assert classifier_two_sample_test(X, Y) == pytest.approx(0.5, abs=0.08)
    assert classifier_two_sample_test(X[:40], Y[:40] + 6) > 0.99


def test_the_forest_sees_what_the_regression_cannot():
    X, Y = normal(100, 2), 0.1 * normal(100, 2, seed=1)
    assert classifier_two_sample_test(X, Y) > 0.9


def test_copies_of_rows_fall_below_one_half():
    X = normal(200, 3)
    assert classifier_two_sample_test(X, X) < 0.48


def test_neither_the_order_of_rows_nor_a_shuffle_with_the_same_seed_moves_the_auc():
    X, Y = normal(60, 2), normal(60, 2, seed=1)
    shuffled = [rows[np.random.RandomState(0).permutation(60)] for rows in (X, Y)]
    assert classifier_two_sample_test(*shuffled, random_state=0) == classifier_two_sample_test(X, Y, random_state=0)


# Copies


def test_bootstrap_copies_all_count_as_copies():
    train = normal(300, 3)
    check = copy_check(train, np.random.default_rng(1).choice(train, 500), normal(300, 3, seed=2))
    assert check.share == 1
    assert check.gap == 1 - check.holdout_share


def test_fresh_rows_leave_no_gap_and_a_part_of_copies_shows():
    train, fresh, holdout = (normal(1000, 3, seed=seed) for seed in range(3))
    assert copy_check(train, fresh, holdout).gap < 0.05
    half_copied = np.concatenate([fresh[:500], train[:500] + 1e-6])
    assert copy_check(train, half_copied, holdout).gap == pytest.approx(0.2, abs=0.06)


def test_on_a_line_two_thirds_of_fresh_uniform_rows_are_nearer_than_the_spacing():
    rng = np.random.default_rng(0)
    assert copy_check(rng.uniform(size=(2000, 1)), rng.uniform(size=(2000, 1))).share == pytest.approx(2 / 3, abs=0.04)


def test_ties_count_half_and_without_held_out_rows_there_is_no_gap():
    train = [[0.0], [1.0], [3.0]]
    assert copy_check(train, [[2.0]]) == (0.75, None, None)  # between 1, a tie, and 3, nearer than its neighbour
    assert copy_check(train, [[2.0], [1.1]]) == (0.875, None, None)
    assert copy_check([[0.0], [0.0], [3.0]], [[0.0]]) == (0.5, None, None)  # a repeated row may be drawn again


def test_standardized_integers_tie_in_spite_of_rounding():
    tens = np.arange(0.0, 500.0, 10.0)[:, None]

    def share(train, rows):
        return copy_check((np.concatenate(train) - 0.3) / 7.1, (np.concatenate(rows) - 0.3) / 7.1).share

    assert share([tens, tens + 1], [tens - 1, tens + 2]) == 0.5  # as far as the spacing
    assert share([tens - 0.5, tens, tens + 2], [tens + 1]) == 0.5  # midway between two rows of different verdicts


# What all have in common


@every_quick_measure
def test_the_order_of_rows_does_not_matter(measure):
    X = np.round(normal(60, 2), 1)  # with ties
    Y = np.round(normal(60, 2, seed=1), 1)
    rng = np.random.default_rng(2)
    expected = measure(X, Y)
    shuffled = measure(rng.permutation(X), rng.permutation(Y))
    assert np.ravel(shuffled).tolist() == pytest.approx(np.ravel(expected).tolist())


@every_quick_measure
def test_arrays_tensors_lists_and_dataframes_of_any_shape_measure_the_same(measure):
    pd = pytest.importorskip("pandas")
    X, Y = normal(20, 6), normal(20, 6, seed=1)
    expected = measure(X, Y)
    assert measure(torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)) == expected
    assert measure(X.tolist(), Y.reshape(20, 2, 3)) == expected
    assert measure(pd.DataFrame(X, columns=list("abcdef")), pd.DataFrame(Y)) == expected


@every_measure
@pytest.mark.parametrize(
    ("X", "Y", "message"),
    [
        (np.ones((4, 2)), np.ones((4, 3)), r"2 columns .* 3 .*\(4, 2\) and \(4, 3\)"),
        (np.ones((4, 2, 3)), np.ones((4, 3, 2)), "laid out differently"),
        (np.ones(4), np.ones((4, 1)), r"1 dimension\(s\) \(4,\).*reshape\(-1, 1\)"),
        (np.ones((4, 1)), np.ones((0, 1)), "empty"),
        (np.ones((4, 1)), np.array([[1.0], [np.nan]]), "NaN or infinity in 1 of its 2 values"),
        (np.array([["a"], ["b"]]), np.ones((2, 1)), "something else than real numbers"),
        (torch.ones(2, 1, dtype=torch.complex64), np.ones((2, 1)), "complex"),
    ],
)
def test_samples_that_cannot_be_compared_are_refused(measure, X, Y, message):
    with pytest.raises(ValueError, match=message):
        measure(X, Y)


def test_dataframes_with_text_or_with_other_columns_are_refused_by_name():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"age": [1.0, 2.0], "sex": ["f", "m"]})
    with pytest.raises(ValueError, match=r"X holds .* columns \['sex'\]"):
        energy_distance(frame, frame)
    numbers = pd.DataFrame({"age": [1.0, 2.0], "height": [3.0, 4.0]})
    with pytest.raises(ValueError, match=r"another order.*Y\[X.columns\]"):
        energy_distance(numbers, numbers[["height", "age"]])
    with pytest.raises(ValueError, match="'weight'"):
        energy_distance(numbers, numbers.rename(columns={"height": "weight"}))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda X: wasserstein(X, X, p=0.5), r"p must be a number in \[1, inf\), got 0.5"),
        (lambda X: sliced_wasserstein(X, X, p=np.inf), r"p must be a number in \[1, inf\), got inf"),
        (lambda X: sliced_wasserstein(X, X, n_projections=0), "n_projections must be an integer >= 1, got 0"),
        (
            lambda X: precision_recall_density_coverage(X, X, n_neighbors=5),
            "n_neighbors must be an integer from 1 to 4.*5 rows.*got 5",
        ),
        (lambda X: classifier_two_sample_test(X, X, cv=6), "cv must be an integer from 2 to 5.*got 6"),
        (lambda X: copy_check(X[:1], X), "train has 1 row"),
        (lambda X: report(X, X), "6 rows a side.* 2 real rows"),
        (lambda X: report(X, X, X, max_rows=2.5), "max_rows must be an integer >= 6, got 2.5"),
    ],
)
def test_parameters_out_of_range_are_refused_by_name(call, name):
    with pytest.raises(ValueError, match=name):
        call(normal(5, 2))


def test_numpys_and_torchs_global_random_states_are_untouched():
    X, Y = normal(15, 2), normal(15, 2, seed=1)
    before = np.random.get_state()[1].copy(), np.random.get_state()[2], torch.get_rng_state()
    sliced_wasserstein(X, Y, random_state=None)
    report(X, Y, random_state=None)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert np.random.get_state()[2] == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_a_seed_fixes_the_directions_and_other_seeds_change_them():
    X, Y = normal(15, 3), normal(15, 3, seed=1)
    first, again, other = (sliced_wasserstein(X, Y, random_state=seed) for seed in (7, 7, 8))
    assert first == again != other
    seeded = [sliced_wasserstein(X, Y, random_state=np.random.RandomState(7)) for _ in range(2)]
    assert seeded[0] == seeded[1]


# The report


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    units = np.array([1.0, 1000.0])
    return [rng.normal(size=(n, 2)) * units for n in (120, 100, 90)]


@pytest.fixture
def quick(monkeypatch):
    """Leave the classifiers out, which take most of a report's time, where a test is not about them."""
    monkeypatch.setattr("flowmatch.metrics.sample_report.classifier_two_sample_test", lambda *_, random_state: 0.5)


@pytest.fixture
def full_report(samples, quick):
    return report(*samples)


def test_the_report_prints_every_measure_beside_its_floor(full_report):
    text = str(full_report)
    assert "90 rows a side; floor: held-out rows" in text
    assert text.splitlines()[3].split() == ["measure", "synthetic", "floor", "better"]
    for name, row in full_report.measures.items():
        line = next(line for line in text.splitlines() if line.startswith(name))
        assert line.split()[1:3] == [f"{row['synthetic']:.4f}", f"{row['floor']:.4f}"]


@pytest.mark.usefixtures("quick")
def test_value_and_floor_are_taken_at_one_size():
    """A sample is nearer to its distribution the larger it is: a floor of 2000 rows would make honest draws look far off."""
    found = report(normal(2000, 2), normal(40, 2, seed=1), normal(2000, 2, seed=2))
    assert found.n_compared == 40
    row = found.measures["wasserstein"]
    assert row["synthetic"] / row["floor"] == pytest.approx(1, abs=0.35)


def test_units_do_not_matter_to_the_report(samples, full_report):
    rescaled = report(*(rows * [1e-3, 7.0] + [0.0, 5.0] for rows in samples))
    for name, row in full_report.measures.items():
        assert rescaled.measures[name] == pytest.approx(row, rel=1e-6), name


@pytest.mark.usefixtures("quick")
def test_without_held_out_rows_the_floor_is_the_other_half(samples):
    real, synthetic, _ = samples
    half = report(real, synthetic)
    assert half.n_compared == 60
    assert "floor: the other half of the real rows" in str(half)
    assert report(real, synthetic, max_rows=20).n_compared == 20


def test_the_report_exposes_a_generator_that_collapses(samples):
    real, _, holdout = samples
    collapsed = report(real, 0.01 * holdout[::-1], holdout).measures
    for name in ("sliced_wasserstein", "wasserstein", "energy_distance", "c2st_auc"):
        assert collapsed[name]["synthetic"] > 1.5 * collapsed[name]["floor"], name
    for name in ("recall", "coverage"):
        assert collapsed[name]["synthetic"] < 0.5 * collapsed[name]["floor"], name


@pytest.mark.usefixtures("quick")
def test_copies_show_though_the_real_rows_are_cut():
    real, holdout = normal(1000, 2), normal(1000, 2, seed=1)
    row = report(real, real, holdout, max_rows=30).measures["copy_share"]
    assert row["synthetic"] == 1 > row["floor"]


@pytest.mark.usefixtures("quick")
def test_columns_are_set_side_by_side_in_their_own_units_under_a_dataframes_names(samples):
    pd = pytest.importorskip("pandas")
    real, synthetic, _ = samples
    found = report(pd.DataFrame(real, columns=["length", "mass"]), torch.from_numpy(synthetic), max_rows=20)
    expected = pd.DataFrame(real)[1].describe()
    for statistic in ("mean", "min", "25%", "50%", "75%", "max"):
        assert found.columns["mass"][statistic]["real"] == pytest.approx(expected[statistic])
    assert found.columns["length"]["std"]["synthetic"] == pytest.approx(synthetic[:, 0].std())
    table = str(found).splitlines()
    mass = next(index for index, line in enumerate(table) if line.startswith("mass"))
    assert table[mass].split()[:3] == ["mass", "real", f"{real[:, 1].mean():.4g}"]
    assert table[mass + 1].split()[:2] == ["synthetic", f"{synthetic[:, 1].mean():.4g}"]


@pytest.mark.usefixtures("quick")
def test_a_column_that_is_constant_in_the_real_rows_does_not_blow_up(samples):
    real, synthetic = (np.column_stack([rows[:, :1], np.full(len(rows), 0.1)]) for rows in samples[:2])
    synthetic[::2, 1] = 0.3
    assert report(real, synthetic, max_rows=20).measures["wasserstein"]["synthetic"] < 2


@pytest.mark.usefixtures("quick")
def test_the_report_of_images_shortens_its_columns_and_keeps_them_in_the_frame():
    pytest.importorskip("pandas")
    found = report(normal(24, 48).reshape(24, 3, 4, 4), torch.randn(12, 3, 4, 4, generator=torch.manual_seed(0)))
    assert "... and 28 more columns" in str(found)
    assert found.to_frame("columns").shape == (48, 14)
    assert found.to_frame("columns").loc["x47", ("max", "synthetic")] == found.columns["x47"]["max"]["synthetic"]


def test_the_report_turns_into_a_frame_and_into_json(full_report):
    pytest.importorskip("pandas")
    frame = full_report.to_frame()
    assert frame.loc["recall", "floor"] == full_report.measures["recall"]["floor"]
    assert json.loads(json.dumps(full_report.to_dict())) == full_report.to_dict()
    with pytest.raises(ValueError, match="unknown part 'rows'"):
        full_report.to_frame("rows")
