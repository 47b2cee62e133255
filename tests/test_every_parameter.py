"""Every parameter of every estimator does something, or is refused by name before training starts.

The tables below have a line for each parameter: a value that changes what a small fit gives, or the sentence that
refuses it. A parameter without a line fails the test.
"""

import inspect
import warnings

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.naive_bayes import GaussianNB

from flowmatch import (
    MLP,
    AugmentedClassifier,
    AugmentedRegressor,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowImputer,
    FlowMatchingGenerator,
    FlowMatchingOverSampler,
    TrainingOptions,
)
from flowmatch.flow import UniformSteps
from flowmatch.objectives import PseudoHuberLoss
from flowmatch.preprocessing import FixedCombinations

TINY = {"network": MLP(width=8, depth=1), "max_iter": 12, "batch_size": 16, "random_state": 0, "device": "cpu"}
RNG = np.random.default_rng(0)
X = RNG.gamma(2.0, size=(60, 3))
X[:, 2] = np.round(X[:, 2])
LABELS = np.arange(60) % 3
GAPS = np.column_stack([np.where(np.random.default_rng(1).random(X.shape) < 0.3, np.nan, X), np.full(60, np.nan)])
WALKS = RNG.normal(size=(6, 20, 2)).cumsum(axis=1)
FIELDS = RNG.normal(size=(5, 9, 1, 8)).cumsum(axis=1)


class Changes:
    """The parameter's value changes what is given; `given` are further parameters of both fits."""

    def __init__(self, value, **given):
        self.value, self.given = value, given


class Refused:
    """The parameter's value is refused with a message; `given` are further parameters."""

    def __init__(self, value, message, **given):
        self.value, self.message, self.given = value, message, given


class Continues:
    """`warm_start` goes on where the last fit ended."""


class Says:
    """`verbose` writes to the terminal."""


def quietly(call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call()


def generated(**parameters):
    def fit():
        model = FlowMatchingGenerator(**{**TINY, **parameters}).fit(X, LABELS)
        return np.concatenate(
            [model.sample(20, random_state=1), model.score_samples(X[:5], LABELS[:5], n_steps=3)[:, None] * np.ones(3)]
        )

    return quietly(fit)


def forecast(**parameters):
    def fit():
        model = ConditionalForecaster(**{**TINY, "n_samples": 6, **parameters})
        data = FIELDS if parameters.get("network") == "unet" else WALKS
        model.fit(data)
        later = model.n_lags
        contexts = data[:, :later] if later > 1 else data[:, 0]
        future = {"future": data[:, 1:2, [1]]} if model.known_columns is not None else {}
        return np.concatenate(
            [model.predict(contexts, **future).ravel(), model.sample(contexts, 2, random_state=1, **future).ravel()]
        )

    return quietly(fit)


def detected(**parameters):
    def fit():
        model = FlowAnomalyDetector(**{**TINY, "n_folds": 1, **parameters}).fit(X)
        return np.append(model.score_samples(X[:9]), model.offset_)

    return quietly(fit)


TEACHER = quietly(lambda: FlowMatchingGenerator(**TINY).fit(X, LABELS))


def distilled(**parameters):
    def fit():
        settings = {"max_iter": 8, "batch_size": 16, "random_state": 0, "estimator": TEACHER}
        if parameters.get("method", "progressive") in ("progressive", "reflow"):
            settings["n_pairs"] = 32
        model = DistilledFlowMap(**{**settings, **parameters}).fit(X, LABELS)
        codes = model.encode(X[:4], LABELS[:4]).ravel() if model.inverse else np.zeros(0)
        return np.concatenate([model.sample(12, random_state=1).ravel(), codes])

    return quietly(fit)


def resampled(**parameters):
    def fit():
        rows, y = FlowMatchingOverSampler(
            **{"generator": FlowMatchingGenerator(**TINY), "random_state": 0, **parameters}
        ).fit_resample(X[:45], np.r_[np.zeros(30, int), np.ones(15, int)])
        return np.column_stack([rows, y])

    return quietly(fit)


def imputed(**parameters):
    def fit():
        model = FlowImputer(**{"estimator": FlowMatchingGenerator(**TINY), "random_state": 0, **parameters})
        tables = [model.fit_transform(GAPS), *model.impute(GAPS)]
        return np.nan_to_num(np.concatenate(tables, axis=1), nan=-9.0)

    return quietly(fit)


def augmented(kind, model, y):
    def run(**parameters):
        settings = {"estimator": model, "generator": FlowMatchingGenerator(**TINY), "random_state": 0}

        def fit():
            fitted = kind(**{**settings, **parameters}).fit(X[:45], y)
            answer = fitted.predict_proba if hasattr(fitted, "predict_proba") else fitted.predict
            return np.append(answer(X[45:]).ravel(), fitted.n_synthetic_)

        return quietly(fit)

    return run


COMPONENTS = {
    "network": Changes(MLP(width=9, depth=1)),
    "path": Changes("cosine"),
    "source": Changes("matched", preprocessing="none"),
    "time_sampler": Changes("u_shaped"),
    "loss": Changes("huber"),
    "loss_weight": Changes("min_snr"),
    "max_iter": Changes(13),
    "max_time": Changes(1e-9, max_iter=25),
    "batch_size": Changes(15),
    "learning_rate": Changes(0.1),
    "training": Changes(TrainingOptions(ema_decay=None)),
    "device": Refused("meta", "device 'meta' is not available"),
    "random_state": Changes(1),
    "verbose": Says(),
    "warm_start": Continues(),
}
GENERATOR = {
    **COMPONENTS,
    "objective": Changes("mean_flow"),
    "coupling": Changes("ot"),
    "preprocessing": Changes("standardize"),
    "condition_dropout": Changes(0.5),
    "guidance_scale": Changes(2.0),
    "categorical_features": Changes([2]),
    "identifier_columns": Refused([2], "keys are not unique"),
    "identifiers": Refused("new", "unknown identifiers 'new'. Choose one of 'fresh', 'drop', 'empty'"),
    "unknown_categories": Refused("flag", "unknown_categories 'flag'"),  # what it changes: test_unknown_categories.py
    "constraints": Changes([FixedCombinations([0, 2])]),
    "masked_share": Changes(0.9),
    "solver": Changes("euler"),
    "n_steps": Changes(3),
}
FORECASTER = {
    **COMPONENTS,
    "source": Changes("matched", target="state"),
    "n_lags": Changes(2),
    "horizon": Changes(2),
    "target": Changes("state"),
    "boundary": Changes("wall", network="unet"),
    "exogenous_columns": Changes([1]),
    "known_columns": Changes([1]),
    "calendar": Refused("week", "calendar='week' needs DataFrames with a DatetimeIndex"),
    "context_noise": Changes(0.5),
    "n_samples": Changes(7),
    "coupling": Refused("ot", "coupling"),
    "solver": Changes("euler"),
    "n_steps": Changes(3),
}
DETECTOR = {
    **COMPONENTS,
    "method": Changes("latent"),
    "contamination": Changes(0.2),
    "false_alarm_rate": Changes(0.3),
    "n_folds": Changes(2),
    "trim": Changes(0.3),
    "references": Changes("drawn"),
    "coupling": Changes("ot"),
    "source": Changes("matched", preprocessing="none", method="latent"),
    "preprocessing": Changes("quantile"),
    "categorical_features": Changes([2]),
    "unknown_categories": Refused("ignore", "unknown_categories 'ignore'"),
    "solver": Changes("euler", method="latent"),
    "n_steps": Changes(2, method="latent"),
}
STUDENT = {
    "estimator": Changes(quietly(lambda: FlowMatchingGenerator(**{**TINY, "random_state": 5}).fit(X, LABELS))),
    "method": Changes("reflow"),
    "n_steps": Changes(2),
    "n_stages": Changes(2),
    "teacher_steps": Changes(3),
    "n_pairs": Changes(40),
    "step_sampler": Changes(UniformSteps()),
    "loss": Changes(PseudoHuberLoss(0.01)),
    "guidance_scale": Changes(2.0),
    "inverse": Changes(True),
    "ema_target": Changes(True, method="semigroup"),
    "fold": Changes(False, method="semigroup"),
    "max_iter": Changes(9),
    "max_time": Changes(1e-9, max_iter=25),
    "batch_size": Changes(15),
    "learning_rate": Changes(0.1),
    "training": Changes(TrainingOptions(ema_decay=None)),
    "random_state": Changes(1),
    "verbose": Says(),
}
OVER_SAMPLER = {
    "generator": Changes(FlowMatchingGenerator(**{**TINY, "random_state": 3})),
    "sampling_strategy": Changes({1: 20}),
    "min_odds": Changes(None),
    "target": Changes("numbers"),
    "random_state": Changes(1),
}
IMPUTER = {
    "estimator": Changes(FlowMatchingGenerator(**{**TINY, "random_state": 3})),
    "n_imputations": Changes(2),
    "sample_posterior": Changes(False, n_imputations=3),
    "add_indicator": Changes(True),
    "keep_empty_features": Changes(True),
    "random_state": Changes(1),
}
AUGMENTED = {
    "generator": Changes(FlowMatchingGenerator(**{**TINY, "random_state": 3})),
    "ratio": Changes(0.9),
    "strategy": Changes("all"),
    "random_state": Changes(1),
}
CLASSES = np.r_[np.zeros(35, int), np.ones(10, int)]
TABLE = {
    FlowMatchingGenerator: (generated, GENERATOR),
    ConditionalForecaster: (forecast, FORECASTER),
    FlowAnomalyDetector: (detected, DETECTOR),
    DistilledFlowMap: (distilled, STUDENT),
    FlowMatchingOverSampler: (resampled, OVER_SAMPLER),
    FlowImputer: (imputed, IMPUTER),
    AugmentedClassifier: (
        augmented(AugmentedClassifier, GaussianNB(), CLASSES),
        {**AUGMENTED, "estimator": Changes(GaussianNB(var_smoothing=1.0))},
    ),
    AugmentedRegressor: (
        augmented(AugmentedRegressor, Ridge(), X[:45].sum(axis=1)),
        {**AUGMENTED, "estimator": Changes(Ridge(100.0))},
    ),
}
CASES = [(kind, name) for kind, (_, lines) in TABLE.items() for name in lines]


BEFORE = {}


def plain(kind, **given):
    """What comes out without the parameter, one fit for all parameters that need no others."""
    key = kind, repr(given)
    if key not in BEFORE:
        BEFORE[key] = TABLE[kind][0](**given)
    return BEFORE[key]


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
def test_every_parameter_has_a_line(kind):
    declared = {
        name for name, p in inspect.signature(kind).parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD
    }
    assert declared == set(TABLE[kind][1])


@pytest.mark.parametrize(("kind", "name"), CASES, ids=[f"{kind.__name__}-{name}" for kind, name in CASES])
def test_it_changes_what_comes_out_or_is_refused(kind, name, capfd):
    run, lines = TABLE[kind]
    line = lines[name]
    if isinstance(line, Refused):
        with pytest.raises(ValueError, match=line.message):
            run(**{name: line.value, **line.given})
    elif isinstance(line, Says):
        capfd.readouterr()
        run(verbose=1)
        assert "".join(capfd.readouterr()) != ""
    elif isinstance(line, Continues):
        model = kind(**{**TINY, "warm_start": True})
        data = WALKS if kind is ConditionalForecaster else X
        quietly(lambda: model.fit(data).fit(data))
        assert model.n_iter_ == 2 * TINY["max_iter"]
    else:
        before, after = plain(kind, **line.given), run(**{name: line.value, **line.given})
        assert before.shape != after.shape or not np.array_equal(before, after)
