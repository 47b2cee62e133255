"""Exported forecasters give, without flowmatch, what `sample` gives for the same noise."""

import json
import logging

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import ConditionalForecaster, DistilledFlowMap, forecasting
from flowmatch.export import ForecastSampler
from flowmatch.networks import MLP, UNet

RNG = np.random.default_rng(0)
ROWS, HOURS = RNG.normal(size=(120, 3)), pd.date_range("2026-01-01", periods=24 * 16, freq="h")
DAYLIGHT = np.clip(np.sin(2 * np.pi * (np.arange(len(HOURS)) % 24 - 6) / 24), 0, None)
N_DRAWS = 40


@pytest.fixture(autouse=True)
def _no_traces():
    """What torch tells of every step of a capture costs pytest more time than the capture."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def forecaster(**parameters):
    return ConditionalForecaster(
        **{"network": MLP(width=8), "max_iter": 2, "n_steps": 2, "random_state": 0} | parameters
    )


def shaken(model):
    """The same with weights far from those it started with, so that everything about it matters."""
    noise = torch.Generator().manual_seed(0)
    for parameter in model.network_.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=noise))
    return model


def table():
    y = ROWS[:, 0] + 0.1 * RNG.normal(size=len(ROWS))
    return shaken(forecaster().fit(ROWS, y)), ROWS[:6], None, (ROWS[:6],)


def two_targets_of_single_precision():
    X = ROWS.astype(np.float32)
    return shaken(forecaster().fit(X, X[:, :2] ** 2)), X[:6], None, (X[:6],)


def mixed_table():
    frame = pd.DataFrame(
        {
            "size": ROWS[:, 0] + 1e6,
            "town": pd.Categorical(RNG.choice(["Graz", "Linz", "Wels"], len(ROWS))),
            "sold": pd.date_range("2026-01-01", periods=len(ROWS)),
        }
    )
    frame.loc[::7, "town"], frame.loc[::5, "size"] = None, np.nan
    model = shaken(forecaster().fit(frame, np.round(ROWS[:, 1], 1)))
    read = model.fitted_.reader.numbers.container.read(frame[:6])
    assert np.isnan(read).any()
    return model, frame[:6], None, (read,)


def phases(instants):
    """The share of the week and of the day that has passed."""
    day = instants.hour / 24
    return np.column_stack([(instants.day_of_week + day) / 7, day])


def calendar_series():
    """Of nights that are always zero, whole numbers, and a column that is known ahead."""
    sun = np.round(20 * DAYLIGHT * RNG.uniform(0.5, 1.0, len(HOURS)))
    offer = RNG.choice(["none", "small", "large"], len(HOURS))
    frame = pd.DataFrame({"sun": sun, "offer": offer, "load": 5 + RNG.normal(size=len(HOURS))}, HOURS)
    model = forecaster(n_lags=3, horizon=2, known_columns="offer", calendar=("week", "day"))
    shaken(model.fit(frame))
    assert model.fitted_.window_encoder.spikes is not None
    ends = range(100, 148)
    histories, ahead = [frame[end - 3 : end] for end in ends], [frame[["offer"]][end : end + 2] for end in ends]
    container = model.fitted_.reader.numbers.container
    known = np.stack([container.numbers_of(1, part["offer"]) for part in ahead])[:, :, None]
    return model, histories, ahead, (np.stack([*map(container.read, histories)]), known, phases(HOURS[list(ends)]))


def table_with_trees():
    X = RNG.uniform(-1, 1, (300, 3)).astype(np.float32).astype(float)
    model = shaken(forecaster().fit(X, np.column_stack([np.sign(X[:, 0]) + (X[:, 1] > 0.3), X[:, 2]])))
    assert model.fitted_.window_encoder.expected is not None
    return model, X[:6], None, (X[:6],)


def scaled_panel():
    panel = [level * (2 + np.sin(np.arange(60) / 5) + 0.1 * RNG.normal(size=60))[:, None] for level in (1, 1e2, 1e4)]
    model = shaken(forecaster(n_lags=4, horizon=3).fit(panel))
    assert model.fitted_.window_encoder.local is not None
    contexts = np.stack([series[start : start + 4] for series in panel for start in (3, 20)])
    return model, contexts, None, (contexts,)


def field():
    X = RNG.normal(size=(3, 8, 2, 8, 8)).cumsum(axis=1)
    model = forecaster(network=UNet(width=4), n_lags=2).fit(X)
    return shaken(model), X[:, :2], None, (X[:, :2],)


CASES = [table, two_targets_of_single_precision, mixed_table, table_with_trees, calendar_series, scaled_panel, field]


def drawn(model, X, future):
    """Noise of draws, and forecasts of it by the estimator, draws first."""
    fitted = model.fitted_
    windows, _ = forecasting.contexts_like_fit(model, X, future, fitted.layout.horizon)
    noise = torch.randn(N_DRAWS, *fitted.model.code_shape, generator=torch.Generator().manual_seed(1))
    members = [part for _, part in forecasting.Ensemble.of(model).draw(windows, N_DRAWS, noise=noise)]
    expected = np.concatenate(members, axis=1)
    return noise.repeat_interleave(expected.shape[1], dim=0), expected.reshape(-1, *expected.shape[2:])


def stated(inputs):
    """Contexts, and what else there is, once for each draw."""
    return [np.tile(np.asarray(part, dtype=np.float64), (N_DRAWS, *[1] * (np.ndim(part) - 1))) for part in inputs]


def assert_same(found, expected):
    """Equal to 1e-5 of the size; grids come an ulp early or late, so few values may be others."""
    found = np.asarray(found)
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    close = np.abs(found - expected) <= 1e-5 * np.abs(expected).max(axis=0)
    assert close.mean() >= 0.998, f"{1 - close.mean():.3%} differ, by up to {np.abs(found - expected).max():g}"


@pytest.mark.parametrize("case", CASES)
def test_a_program_makes_of_noise_and_contexts_what_sample_makes(case):
    model, X, future, inputs = case()
    noise, expected = drawn(model, X, future)
    assert len(np.unique(expected)) > 10
    program = ForecastSampler(model.model_, forecasting.Ensemble.of(model).integration, model.fitted_.form)
    assert program.input_names == ["noise", "context", "known", "calendar"][: 1 + len(inputs)]
    assert_same(program(noise, *map(torch.as_tensor, stated(inputs))), expected)


def test_a_file_holds_the_program_of_a_student_and_tells_what_it_takes(tmp_path):
    model, X, _, inputs = mixed_table()
    y = np.round(ROWS[:6, 1], 1)
    student = DistilledFlowMap(model, max_iter=2, n_pairs=1000, random_state=0).fit(X, y)
    student.export(tmp_path / "student.pt2")
    told = {"flowmatch.json": ""}
    program = torch.export.load(tmp_path / "student.pt2", extra_files=told).module()
    noise, expected = drawn(student.as_teacher(), X, None)
    assert_same(program(noise, *map(torch.as_tensor, stated(inputs))), expected)
    about = json.loads(told["flowmatch.json"])
    assert about["solver"] == "flow_map"
    noise_told, context = about["inputs"]
    assert (noise_told["shape"], context["shape"]) == (["batch", 1], ["batch", 3])
    assert context["columns"] == ["size", "town", "sold"]
    assert context["levels"][1] == ["Graz", "Linz", "Wels"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_an_onnx_model_and_a_program_give_the_draws_of_the_estimator(case, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, X, future, inputs = case()
    noise, expected = drawn(model, X, future)
    for name in ("forecaster.pt2", "forecaster.onnx"):
        model.export(tmp_path / name, n_steps=2)
    program = torch.export.load(tmp_path / "forecaster.pt2").module()
    assert_same(program(noise, *map(torch.as_tensor, stated(inputs))), expected)
    session = onnxruntime.InferenceSession(tmp_path / "forecaster.onnx")
    names = [entry.name for entry in session.get_inputs()]
    fed = dict(zip(names, [noise.numpy(), *stated(inputs)], strict=True))
    assert_same(session.run(None, fed)[0], expected)


def test_adaptive_solvers_are_refused_by_name(tmp_path):
    model = forecaster(solver="dopri5", n_steps=None).fit(ROWS, ROWS[:, 0])
    with pytest.raises(ValueError, match="solver='dopri5' chooses its steps while it runs"):
        model.export(tmp_path / "forecaster.pt2")
    assert not list(tmp_path.iterdir())


def series_with_holes():
    walk = RNG.normal(size=(200, 2)).cumsum(axis=0)
    walk[::9, 0] = np.nan
    return forecaster(n_lags=2).fit(walk)


def field_with_conditions():
    X = RNG.normal(size=(4, 6, 1, 8, 8))
    return forecaster(network=UNet(width=4)).fit(X, conditions=["a", "b", "a", "b"])


@pytest.mark.parametrize(
    ("model", "what"), [(series_with_holes, "lags may lack values"), (field_with_conditions, "fields have conditions")]
)
def test_what_programs_cannot_do_is_refused_by_name(model, what, tmp_path):
    with pytest.raises(ValueError, match=f"{what} cannot be exported"):
        model().export(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())
