"""No file holds training rows that it does not need: all tensors and the header of saved models are searched for them."""

import json

import damaged_files as damaged
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import flowmatch
from flowmatch import (
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
)
from flowmatch.anomaly import Neighbors
from flowmatch.networks import MLP, UNet

N = 120
RNG = np.random.default_rng(0)
X = 1e6 * (3 + RNG.normal(size=(N, 3)))  # nothing else in a file is as large
Y = 1e9 * (3 + RNG.normal(size=(N, 2)))
STEPS = 1e9 * (3 + 4 * (X[:, 0] > 3e6) * (X[:, 1] > 3e6)) + Y[:, 0] / 10
LABELS = np.arange(N) % 3
HOLED = np.where(RNG.random(X.shape) < 0.2, np.nan, X)
SERIES = 1e6 * (3 + RNG.normal(size=(N, 2)).cumsum(axis=0))
IMAGES = 1e6 * (3 + RNG.normal(size=(N, 1, 4, 4)))
FRAME = pd.DataFrame({"load": Y[:, 0], "fault": np.array(["a", "b", "c"])[LABELS]})
SMALL = {"max_iter": 3, "random_state": 0, "device": "cpu"}
NETWORK = {"network": MLP(width=8, depth=1), **SMALL}
UNET = UNet(width=4, multipliers=(1,), attention_levels=0)
PLAIN = {"preprocessing": "standardize", **NETWORK}


def generator(*data, **changes):
    return FlowMatchingGenerator(**{**PLAIN, **changes}).fit(*data)


def detector(*data, **changes):
    return FlowAnomalyDetector(**{"n_folds": 1, **NETWORK, **changes}).fit(*data)


def forecaster(*data, **changes):
    return ConditionalForecaster(**{**NETWORK, **changes}).fit(*data)


def student(*data):
    return DistilledFlowMap(generator(*data), max_iter=3, random_state=0).fit(*data)


MODELS = {
    "table": (lambda: generator(X), X),
    "min and max": (lambda: generator(X, preprocessing="minmax"), X),
    "labels": (lambda: generator(X, LABELS), X),
    "a number": (lambda: generator(X, Y[:, 0]), X),
    "numbers": (lambda: generator(X, Y), X),
    "mixed conditions": (lambda: generator(X, FRAME), X),
    "missing entries": (lambda: generator(HOLED), X),
    "missing entries and numbers": (lambda: generator(HOLED, Y), X),
    "going on": (lambda: generator(X, Y, warm_start=True).fit(X, Y), X),
    "mean flow": (lambda: generator(X, Y, objective="mean_flow"), X),
    "images": (lambda: generator(IMAGES, network=UNET), IMAGES),
    "images for images": (lambda: generator(IMAGES, 2 * IMAGES, network=UNET), IMAGES),
    "student": (lambda: student(X, Y), X),
    "detector of grids": (lambda: detector(IMAGES, network=UNET), IMAGES),
    "series": (lambda: forecaster(SERIES, n_lags=3), SERIES),
    "windows": (lambda: forecaster(X, Y), X),
    "trees": (lambda: forecaster(X, STEPS), X),
    "calibrated": (lambda: forecaster(X, Y).calibrate(X, Y), X),
    "calibrated by folds": (lambda: forecaster(X, Y).calibrate(X, Y, cv=2), X),
}


def tensors_and_header(path):
    header, tensors = damaged.take_apart(path.read_bytes())
    return {name: tensor.double().numpy() for name, tensor in tensors.items()}, json.dumps(header)


def held_values(path, values):
    """How many values of rows are in a file, as numbers of either precision or as text, tensor by tensor.

    Not counted are the least and the greatest of each column, and what `preprocessing="quantile"` keeps of each column
    by itself.
    """
    tensors, header = tensors_and_header(path)
    columns = values.reshape(*values.shape[:2], -1).swapaxes(1, 2).reshape(-1, values.shape[1])
    extremes = np.concatenate([np.nanmin(columns, axis=0), np.nanmax(columns, axis=0)])
    wanted = np.setdiff1d(values[~np.isnan(values)], extremes)
    wanted = np.union1d(wanted, wanted.astype(np.float32).astype(np.float64))
    found = {name: int(np.isin(tensor, wanted).sum()) for name, tensor in tensors.items()}
    found["header"] = sum(repr(float(value)) in header for value in wanted)
    return {
        name: count for name, count in found.items() if count and not name.endswith(("limits", "transform.values_"))
    }


def held_codes(path, codes):
    """Tensors of a file that hold the codes of some rows, to six digits."""
    tensors, _ = tensors_and_header(path)
    codes, found = codes.reshape(len(codes), -1), {}
    for name, tensor in tensors.items():
        rows = tensor.reshape(-1, codes.shape[1]) if tensor.size % codes.shape[1] == 0 else np.empty((0, 1))
        near = [np.abs(rows - code).max(axis=1).min(initial=np.inf) < 1e-6 for code in codes] if len(rows) else [False]
        if any(near):
            found[name] = sum(near)
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("name", MODELS)
def test_no_file_holds_values_of_training_rows_but_the_extremes(path, name):
    make, rows = MODELS[name]
    make().save(path)
    assert not held_values(path, rows)
    assert not held_values(path, Y)
    assert not held_values(path, STEPS[:, None])


def codes_of(detector, rows):
    return [member.model.encoder.encode(rows) for member in detector.fitted_.members]


DETECTORS = {
    "combined": (X, {}),
    "folds": (X, {"n_folds": 3}),
    "neighbors": (X, {"method": "neighbors"}),
    "latent neighbors": (X, {"method": Neighbors(space="latent")}),
    "one_step": (X, {"method": "one_step"}),
    "missing entries": (HOLED, {}),
    "outliers": (X, {"contamination": 0.1}),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_hold_rows_unless_they_are_to_be_drawn(path, name):
    rows, options = DETECTORS[name]
    whole = rows[~np.isnan(rows).any(axis=1)]
    for references in ("rows", "drawn"):
        fitted = detector(rows, references=references, **options)
        fitted.save(path)
        assert not held_values(path, rows)
        held = [held_codes(path, codes) for codes in codes_of(fitted, whole)]
        assert all(held) if references == "rows" else not any(held)


def test_references_of_classes_and_of_later_fits_are_drawn_too(path):
    fitted = detector(X, LABELS, references="drawn").partial_fit(X + 1e5, LABELS)
    fitted.save(path)
    assert not held_codes(path, fitted.fitted_.model.encoder.encode(X + 1e5))
    loaded = flowmatch.load(path, device="cpu")
    np.testing.assert_array_equal(loaded.score_samples(X), fitted.score_samples(X))
    with pytest.raises(ValueError, match="references was 'drawn'"):
        loaded.set_params(references="rows").partial_fit(X, LABELS)


def test_drawn_references_need_a_flow_that_draws_rows():
    with pytest.raises(ValueError, match="references='drawn'.*choose another method"):
        detector(X, method="reconstruction", references="drawn")
    with pytest.raises(ValueError, match="unknown references 'none'"):
        detector(X, references="none")


def test_drawn_references_rank_as_training_rows_do():
    rng = np.random.default_rng(0)
    normal, odd = (rng.normal(size=(900, 1)) + noise * rng.normal(size=(900, 4)) for noise in (0.3, 1.0))
    answers = []
    for references in ("rows", "drawn"):
        fitted = FlowAnomalyDetector(references=references, random_state=0, device="cpu", max_iter=150).fit(
            normal[:600]
        )
        scores = -fitted.score_samples(np.concatenate([normal[600:], odd]))
        assert (fitted.predict(normal[600:]) == -1).mean() == pytest.approx(0.05, abs=0.05)
        answers.append(roc_auc_score(np.arange(1200) >= 300, scores))
    assert answers[1] > answers[0] - 0.02


def test_the_search_finds_what_is_there(path):
    generator(X, Y).save(path)
    damaged.tamper(
        path, lambda header, tensors: tensors.update(one=torch.tensor(X[3]), other=torch.tensor(Y[5:7]).float())
    )
    assert held_values(path, X) == {"one": 3}
    assert held_values(path, Y) == {"other": 4}
    damaged.tamper(path, lambda header, tensors: header.update(one=X[7, 1]))
    assert held_values(path, X) == {"one": 3, "header": 1}


@pytest.mark.parametrize("conditions", [None, LABELS, Y, FRAME])
def test_files_do_not_grow_with_the_rows(path, conditions):
    sizes = []
    for n in (6_000, 12_000):
        rows = np.resize(X, (n, 3)) + np.arange(n)[:, None]
        rows = np.where(np.random.default_rng(n).random(rows.shape) < 0.3, np.nan, rows)
        y = conditions
        if isinstance(y, pd.DataFrame):
            y = pd.DataFrame({"load": np.arange(n) + 0.5, "fault": np.resize(y["fault"], n)})
        elif y is not None:
            y = np.resize(y, (n, *y.shape[1:])) + (0 if y is LABELS else np.arange(n)[:, None])
        generator(rows, y).save(path)
        sizes.append(path.stat().st_size)
    assert abs(sizes[1] - sizes[0]) < 2_000  # a few digits in the header
    assert sizes[1] < 500_000
