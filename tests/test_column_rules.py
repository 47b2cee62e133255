"""Rules of columns: found where nearly all values keep them, and kept by what is generated."""

import numpy as np
import pytest
import torch

import flowmatch
from flowmatch import FlowMatchingGenerator
from flowmatch.networks import MLP
from flowmatch.preprocessing.quantile import QuantileNormal
from flowmatch.rules.calendar import find_calendar_rule
from flowmatch.rules.numbers import find_number_rule, round_to_digits
from flowmatch.tables.dates import DateGrid

pandas = pytest.importorskip("pandas")

N = 400


def rng(seed=0):
    return np.random.default_rng(seed)


def on_step(values, step, offset=0.0):
    distance = (np.asarray(values, dtype=float) - offset) / step
    return np.abs(distance - np.round(distance)) < 1e-6


def digits(values, count):
    return np.isclose(values, round_to_digits(np.asarray(values, dtype=float), count), rtol=1e-12)


def skewed(n, seed=0):
    return np.exp(rng(seed).normal(5, 1.5, n))


NUMBERS = {
    "whole": (lambda n: skewed(n).round(), lambda x: on_step(x, 1)),
    "cents": (lambda n: skewed(n).round(2), lambda x: on_step(x, 0.01)),
    "multiples of 25": (lambda n: 25 * rng().integers(0, 400, n), lambda x: on_step(x, 25)),
    "multiples of 12 plus 5": (lambda n: 12 * rng().integers(0, 400, n) + 5, lambda x: on_step(x, 12, 5)),
    "quarters": (lambda n: 0.25 * rng().integers(0, 400, n), lambda x: on_step(x, 0.25)),
    "thirds": (lambda n: rng().integers(0, 4000, n) / 3, lambda x: on_step(x, 1 / 3)),
    "pounds in kilograms": (lambda n: 0.45359237 * rng().integers(90, 900, n), lambda x: on_step(x, 0.45359237)),
    "ending in .99": (lambda n: skewed(n).round() + 0.99, lambda x: on_step(x, 1, 0.99)),
    "ending in .95 or .99": (
        lambda n: skewed(n).round() + rng(1).choice([0.95, 0.99], n),
        lambda x: on_step(x, 1, 0.95) | on_step(x, 1, 0.99),
    ),
    "ending in 0 or 7": (
        lambda n: 10 * rng().integers(0, 500, n) + rng(1).choice([0, 7], n),
        lambda x: on_step(x, 10) | on_step(x, 10, 7),
    ),
    "two significant digits": (lambda n: round_to_digits(skewed(n) ** 2, 2), lambda x: digits(x, 2)),
    "one significant digit of small numbers": (
        lambda n: round_to_digits(1e-5 * rng().lognormal(0, 6, n), 1),
        lambda x: digits(x, 1),
    ),
}

EXCEPTIONS = [0.0, 0.01]


def with_exceptions(values, share, seed=5):
    values = np.array(values, dtype=float)
    broken = rng(seed).random(len(values)) < share
    values[broken] = rng(seed).uniform(values.min(), values.max(), broken.sum())
    return values


@pytest.mark.parametrize("n", [200, 3000])
@pytest.mark.parametrize("share", EXCEPTIONS)
@pytest.mark.parametrize("name", NUMBERS)
def test_rules_of_numbers_are_found_and_kept(name, share, n):
    make, keeps = NUMBERS[name]
    values = with_exceptions(make(n), share)
    rule = find_number_rule(values)
    between = rule.snap(rng(2).uniform(values.min(), values.max(), 2000))
    assert keeps(between).all(), str(rule)
    own = values[keeps(values)]
    np.testing.assert_allclose(rule.snap(own), own, rtol=1e-7)
    assert between.min() >= own.min()
    assert between.max() <= own.max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rounding_error_of_the_dtype_hides_no_rule(dtype):
    values = (rng().integers(0, 400, N) / 3).astype(dtype)
    rule = find_number_rule(values.astype(float), float(np.finfo(dtype).eps))
    assert rule.step == pytest.approx(1 / 3, rel=1e-5)


def in_single(values):
    return values.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize(
    ("make", "share"), [(in_single, 1.0), (lambda x: round_to_digits(in_single(x), 8), 0.0)], ids=["exact", "8 digits"]
)
@pytest.mark.parametrize("decimals", [1, 2, 4])
def test_numbers_that_have_been_through_single_precision_keep_their_decimals(make, share, decimals):
    plain = (skewed(N) / 50).round(decimals)
    rule = find_number_rule(make(plain))
    assert rule.decimals == decimals
    drawn = rule.snap(rng(2).uniform(plain.min(), plain.max(), 2000))
    np.testing.assert_allclose(drawn, drawn.round(decimals), rtol=1e-7, atol=0)
    assert (drawn == in_single(drawn)).mean() >= share


def test_digits_of_large_values_leave_small_ones_their_decimals():
    values = np.where(
        rng(1).random(3000) < 0.8, skewed(3000).clip(max=999).round(), 1000.0 * rng().integers(1, 99, 3000)
    )
    rule = find_number_rule(values)
    assert rule.digits == 3
    drawn = rule.snap(np.exp(rng(2).uniform(0, 11, 2000)))
    assert on_step(drawn, 1).all()
    assert digits(drawn, 3).all()


@pytest.mark.parametrize("size", [1, 1000])
@pytest.mark.parametrize(
    ("endings", "shares"), [([0.29, 0.99], [0.1, 0.9]), ([0.0, 0.5, 0.9], [0.7, 0.1, 0.2]), ([0.95, 0.99], [0.5, 0.5])]
)
def test_endings_come_as_often_as_they_are(endings, shares, size):
    values = size * (rng().integers(3, 900, 5000) + rng(1).choice(endings, 5000, p=shares))
    rule = find_number_rule(values)
    between = size * rng(2).uniform(3, 900, 50_000)
    drawn = rule.snap(between)
    for ending, share in zip(endings, shares, strict=True):
        assert on_step(drawn / size, 1, ending).mean() == pytest.approx(share, abs=0.02)
    assert np.abs(drawn - between).max() <= size
    assert (drawn - between).mean() == pytest.approx(0, abs=0.02 * size)
    np.testing.assert_allclose(rule.snap(values), values, rtol=1e-12)
    np.testing.assert_array_equal(rule.snap(drawn), drawn)


@pytest.mark.parametrize("printed", [4, 6])
def test_decimals_that_single_precision_has_blurred_are_found_behind_more_decimals(printed):
    prices = rng().uniform(20, 999, N).round(2)
    assert find_number_rule(in_single(prices).round(printed)).decimals == 2


def test_few_large_values_show_no_digits():
    values = np.where(rng(1).random(3000) < 0.985, rng().integers(0, 1000, 3000), rng().integers(1000, 99999, 3000))
    assert find_number_rule(values.astype(float)).digits == 0


@pytest.mark.parametrize(
    "values",
    [
        rng().normal(size=N),
        in_single(skewed(N)),
        skewed(N),
        np.where(rng(1).random(N) < 0.985, 0.0, skewed(N)),
        rng().uniform(0, 1e-9, N),
    ],
    ids=["normal", "in single precision", "skewed", "zeros and a few real numbers", "tiny"],
)
def test_real_numbers_have_no_rule(values):
    assert find_number_rule(values) is None


def test_chance_is_no_rule():
    found = [find_number_rule(rng(seed).normal(50, 20, 200).round()) for seed in range(200)]
    assert {(rule.decimals, rule.period, rule.digits) for rule in found} == {(0, 1.0, 0)}


def test_a_frequent_exception_stays():
    values = np.where(rng(1).random(2000) < 0.05, -999.0, 50.0 * rng().integers(1, 300, 2000))
    rule = find_number_rule(values)
    assert rule.step == 50
    assert rule.exceptions.tolist() == [-999.0]
    assert rule.snap(np.array([-999.0, -998.0, 111.0])).tolist() == [-999.0, 50.0, 100.0]


def days(frequency, n, years=30):
    every = pandas.date_range("1990-01-01", periods=1 + 365 * years, freq="D")
    chosen = pandas.date_range(every[0], every[-1], freq=frequency)
    return chosen[rng().integers(0, len(chosen), n)], set(chosen)


FREQUENCIES = ["D", "B", "W-MON", "2W-SUN", "MS", "ME", "QS", "QE", "YS", "YE", "BMS", "BME", "SMS"]


def dates_of(numbers, grid):
    return pandas.DatetimeIndex(grid.write(numbers))


@pytest.mark.parametrize("share", EXCEPTIONS)
@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_calendars_are_found_and_kept(frequency, share):
    dates, known = days(frequency, 600)
    moments = dates.to_numpy().astype("datetime64[s]").copy()
    broken = rng(3).random(len(moments)) < share
    moments[broken] += rng(4).integers(1, 86_400 * 300, broken.sum()).astype("timedelta64[s]")
    grid = DateGrid.fit(moments)
    numbers = grid.read(moments)
    rule = find_calendar_rule(numbers, grid)
    between = dates_of(rule.snap(rng(2).uniform(numbers.min(), numbers.max(), 2000)), grid)
    assert set(between) <= known
    np.testing.assert_array_equal(dates_of(rule.snap(numbers[~broken]), grid), pandas.DatetimeIndex(moments[~broken]))


def office_hours(n):
    dates, _ = days("B", n)
    return dates + pandas.to_timedelta(rng(5).integers(9 * 60, 17 * 60, n), "min")


TIMES = {
    "quarters of an hour": (
        lambda n: pandas.Timestamp("2021-03-01") + pandas.to_timedelta(15 * rng().integers(0, 90_000, n), "min"),
        lambda t: (t.minute % 15 == 0) & (t.second == 0),
    ),
    "office hours": (
        office_hours,
        lambda t: (t.hour >= 9) & (t.hour < 17) & (t.day_of_week < 5) & (t.second == 0),
    ),
    "at half past nine": (
        lambda n: days("D", n)[0] + pandas.Timedelta(hours=9, minutes=30),
        lambda t: (t.hour == 9) & (t.minute == 30) & (t.second == 0),
    ),
    "every 25 hours": (
        lambda n: pandas.Timestamp("2021-03-01 07:00") + pandas.to_timedelta(25 * rng().integers(0, 9000, n), "h"),
        lambda t: (t - pandas.Timestamp("2021-03-01 07:00")) % pandas.Timedelta(hours=25) == pandas.Timedelta(0),
    ),
}


@pytest.mark.parametrize("name", TIMES)
def test_times_of_day_are_found_and_kept(name):
    make, keeps = TIMES[name]
    moments = make(600).to_numpy()
    grid = DateGrid.fit(moments)
    numbers = grid.read(moments)
    rule = find_calendar_rule(numbers, grid)
    assert keeps(dates_of(rule.snap(rng(2).uniform(numbers.min(), numbers.max(), 2000)), grid)).all(), str(rule)


def test_days_of_a_time_zone_are_days_on_its_clock():
    dates, known = days("MS", 600)
    local = dates.tz_localize("Europe/Berlin")
    broken = pandas.Series(local).where(rng(3).random(600) > 0.01, pandas.Timestamp("2004-05-06 12:34:56", tz="UTC"))
    moments = broken.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()
    grid = DateGrid.fit(moments, "Europe/Berlin")
    numbers = grid.read(moments)
    snapped = find_calendar_rule(numbers, grid).snap(rng(2).uniform(numbers.min(), numbers.max(), 500))
    between = pandas.DatetimeIndex(grid.write(snapped)).tz_localize("UTC").tz_convert("Europe/Berlin").tz_localize(None)
    assert set(between) <= known


def table(n=N):
    z = rng(7).normal(size=n)
    return pandas.DataFrame(
        {
            "price": np.exp(4 + z).round() + 0.99,
            "size": 0.25 * np.round(40 + 30 * z),
            "start": pandas.date_range("1990-01-01", periods=360, freq="MS")[(180 + 40 * z).clip(0, 359).astype(int)],
            "seen": office_hours(n),
            "lasted": pandas.to_timedelta(300 * np.round(np.exp(3 + z)), "s"),
        }
    )


KEPT = {
    "price": lambda x: on_step(x, 1, 0.99),
    "size": lambda x: on_step(x, 0.25),
    "start": lambda x: x.dt.day == 1,
    "seen": lambda x: (x.dt.hour >= 9) & (x.dt.hour < 17) & (x.dt.day_of_week < 5) & (x.dt.second == 0),
    "lasted": lambda x: on_step(x.dt.total_seconds(), 300),
}


def fitted(X, **changes):
    parameters = {"network": MLP(width=16, depth=1), "max_iter": 20, "random_state": 0, "device": "cpu", **changes}
    return FlowMatchingGenerator(**parameters).fit(X)


@pytest.mark.parametrize("preprocessing", ["auto", "standardize", "minmax"])
def test_generated_tables_keep_the_rules(preprocessing, tmp_path):
    model = fitted(table(), preprocessing=preprocessing)
    model.save(tmp_path / "model.safetensors")
    for each in (model, flowmatch.load(tmp_path / "model.safetensors", device="cpu")):
        drawn = each.sample(300, random_state=1)
        assert all(keeps(drawn[name]).all() for name, keeps in KEPT.items())
        assert each.columns_["start"].endswith("; dates; days 1 of the month")
        assert each.columns_["price"].endswith("; multiples of 1 plus 0.99")
        assert each.columns_["lasted"].endswith("; multiples of 5 m")
        assert each.columns_["seen"].endswith(
            "; steps of 1 m; hours 9 to 16; Monday, Tuesday, Wednesday, Thursday, Friday; day and time of day apart"
        )


def test_filled_entries_keep_the_rules():
    X = table()
    holes = X.mask(rng(8).random(X.shape) < 0.2)
    filled = fitted(holes).impute(holes, random_state=0)
    assert all(keeps(filled[name]).all() for name, keeps in KEPT.items())
    pandas.testing.assert_frame_equal(filled.where(holes.notna()), holes)


def test_a_day_and_its_time_are_two_codes_of_one_column():
    X = table()
    model = fitted(X)
    encoder = model.model_.encoder
    assert model.model_.code_shape == (6,)
    assert encoder.code_columns.tolist() == [0, 1, 2, 3, 3, 4]
    values = encoder.container.read(X)
    np.testing.assert_allclose(encoder.decode(encoder.encode(values)), values, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(encoder.log_slopes(values).shape, values.shape)
    assert np.isfinite(model.score_samples(X[:5])).all()


def test_times_of_day_follow_other_columns():
    """A time of day that decides another column does so among samples, as no count of seconds would show."""
    n = 1500
    hour = rng(9).choice([8, 18], n)
    X = pandas.DataFrame(
        {
            "when": pandas.date_range("2020-01-01", periods=600, freq="D")[rng(10).integers(0, 600, n)]
            + pandas.to_timedelta(hour * 3600 + rng(11).integers(0, 3600, n), "s"),
            "load": hour + rng(12).normal(size=n),
        }
    )
    drawn = fitted(X, network=MLP(width=64, depth=2), max_iter=400).sample(1000, random_state=0)
    late = drawn["when"].dt.hour >= 13
    assert drawn["when"].dt.hour.isin([8, 18]).all()
    assert ((drawn["load"] > 13) == late).mean() > 0.9


@pytest.mark.parametrize("n_rows", [3000, 20_000])
def test_values_of_more_than_a_knot_keep_their_share(n_rows):
    x = rng().normal(size=n_rows)
    x[rng(1).random(n_rows) < 0.3] = 0.125
    x[rng(2).random(n_rows) < 0.01] = x.max()
    transform = QuantileNormal().fit(x[:, None])
    drawn = transform.restore(rng(3).normal(size=(100_000, 1)))[:, 0]
    for value in (0.125, x.max()):
        own = (x == value).mean()
        assert (drawn == value).mean() == pytest.approx(own, abs=5 * np.sqrt(own / 100_000) + 1 / n_rows)


def test_columns_of_every_type_are_described():
    import datetime
    import decimal

    n = 60
    X = pandas.DataFrame(
        {
            "key": [f"K-{i:03d}" for i in range(n)],
            "opens": [datetime.time(hour) for hour in rng().integers(6, 22, n)],
            "day": [datetime.date(2024, 3, day) for day in rng().integers(1, 30, n)],
            "price": [decimal.Decimal(int(cents)) / 100 for cents in rng().integers(100, 999, n)],
            "month": pandas.period_range("2020-01", periods=n, freq="M"),
            "large": [10**25 + int(i) for i in rng().integers(0, 999, n)],
            "span": pandas.to_timedelta(rng().integers(1, 50, n), "h"),
            "never": np.full(n, np.nan),
            "yes": rng().random(n) < 0.5,
            "band": pandas.cut(rng().random(n), [0.0, 0.5, 1.0]),
        }
    )
    with pytest.warns(UserWarning, match="taken for keys"):
        lines = fitted(X).columns_
    assert list(lines) == list(X.columns)
    assert lines["key"] == "keys"
    assert lines["never"] == "number without a value"
    assert lines["opens"].startswith("timedelta from 06:00:00 to 21:00:00")
    assert lines["day"].startswith("datetime from 2024-03-01 to 2024-03-29")
    assert lines["month"].startswith("number from 2020-01 to 2024-12")
    assert lines["large"].startswith(f"number from {X['large'].min()} to {X['large'].max()}")


def test_exported_samplers_keep_the_rules():
    from flowmatch.export.decoding import Decoder

    encoder = fitted(table()).model_.encoder
    codes = torch.as_tensor(rng(4).normal(size=(500, *encoder.code_shape)), dtype=torch.float32)
    drawn = encoder.container.wrap(Decoder(encoder)(codes).double().numpy()).round({"price": 2})  # it is float32
    assert all(keeps(drawn[name]).all() for name, keeps in KEPT.items())
    found, expected = Decoder(encoder)(codes).double().numpy(), encoder.restore(codes.double().numpy())
    assert np.isclose(found, expected, rtol=1e-6).mean() > 0.995  # ranks in float32 may lie on the other side of a step


def test_exported_samplers_keep_single_precision_and_decimals_of_digits():
    from flowmatch.export.decoding import Decoder

    X = pandas.DataFrame(
        {
            "score": in_single((skewed(3000) / 50).round(3)),
            "people": round_to_digits(skewed(3000) ** 2, 3).round(),
            "price": skewed(3000).round() + rng(5).choice([0.29, 0.99], 3000, p=[0.2, 0.8]),
            "count": rng(6).integers(0, 2**50, 3000),  # needs a program in double precision
        }
    )
    encoder = fitted(X).model_.encoder
    codes = rng(4).normal(size=(500, 4))
    found, expected = Decoder(encoder)(torch.as_tensor(codes)).numpy()[:, :3], encoder.restore(codes)[:, :3]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert (found[:, 0] == in_single(found[:, 0])).all()
    assert (found[:, 1] == found[:, 1].round()).all()


def test_a_program_of_split_dates_gives_what_the_estimator_gives(tmp_path):
    model = fitted(table())
    model.export(tmp_path / "sampler.pt2", n_steps=1)  # the decoder is looked at
    noise = torch.as_tensor(rng(4).normal(size=(50, *model.model_.code_shape)), dtype=torch.float32)
    found = torch.export.load(tmp_path / "sampler.pt2").module()(noise)
    names = list(KEPT)
    drawn = model.model_.encoder.container.wrap(found.double().numpy())
    assert all(KEPT[name](drawn[name].round(2) if name == "price" else drawn[name]).all() for name in names)
