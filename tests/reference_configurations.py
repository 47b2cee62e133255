"""What the recorded references are of: small configurations of everything, and what is asked of each."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import reference_data as data
import torch
from reference_estimators import (
    TINY_UNET,
    augmented_classifier,
    augmented_regressor,
    detector,
    forecaster,
    generator,
    over_sampler,
    student,
)

from flowmatch import objectives
from flowmatch.networks import MLP, Transformer, UNet
from flowmatch.training import TrainingOptions

SCORES = (
    "combined", "one_step", "latent", "likelihood", "neighbors", "denoising", "rebuilding", "reconstruction",
)  # fmt: skip


# What three emulated instruction sets were seen to differ by, rounded up to a power of ten.
# 1e-5: the rounding of float32 after some training. 1e-4: inverses of steep distribution functions and the steps of
# adaptive solvers amplify it. 1e-3: attention trained from zero, and entries filled in from a source with atoms, more so.
TOLERANCES = {
    1e-5: """labels warm_start field_trajectories detector_signals student_semigroup student_unfolded student_lagrangian
        student_without_teacher student_reflow augmented_regressor numeric_conditions grid_condition mean_flow
        mixed_regression series_exogenous volumes over_sampler_classes""",
    1e-4: """table mixed_with_holes early_stopping student_progressive student_of_holes field_pairs student_of_table
        over_sampler_amounts""",
    1e-3: "images mixed_conditions",
}


@dataclass(frozen=True)
class Configuration:
    """How a model is made, what is asked of it, and whether a file of it is kept.

    `tolerance` is relative and absolute. Networks compute and train in float32, to 1e-7 of a state at best, so other
    processors than the one that recorded agree only so far: see `TOLERANCES`. `rare` is the share of grey levels that
    may be others.
    """

    name: str
    make: Callable[[], Any]
    outputs: dict[str, Callable[[Any], Any]]
    file: bool = True
    rare: float = 0.0

    @property
    def tolerance(self) -> float:
        return next((size for size, names in TOLERANCES.items() if self.name in names.split()), 1e-6)


CONFIGURATIONS: dict[str, Configuration] = {}


def configuration(name, make, outputs, **options):
    CONFIGURATIONS[name] = Configuration(name, make, outputs, **options)


def attributes(*names):
    return lambda model: {name: getattr(model, name) for name in names}


def history(model):
    """What training told, apart from how long it took; NaN where nothing was measured."""
    return {k: np.array(v, dtype=np.float64) for k, v in model.history_.items() if k != "seconds"}


def exported(model, *inputs, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sampler.pt2"
        model.export(path, **options)
        return torch.export.load(path).module()(*inputs)


def exported_to_onnx(model, noise, **options):
    import pytest

    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sampler.onnx"
        model.export(path, format="onnx", **options)
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return session.run(["sample"], {"noise": noise.numpy()})[0]


def codes_and_back(X, y=None, **options):
    """What a flow's codes of some rows are, and what their shifted codes decode to."""
    shifted = lambda m: m.decode(0.9 * np.asarray(m.encode(X, y, **options)), y, **options)  # noqa: E731
    return {"encode": lambda m: m.encode(X, y, **options), "decode": shifted}


# Generators


TABLE, MIXED, HOLES = data.numbers(), data.mixed(), data.mixed_with_holes()
ROWS = TABLE[:6]
GAPS = np.where(data.random(20).uniform(size=(6, 3)) < 0.4, np.nan, ROWS)

configuration(
    "table",
    lambda: generator().fit(TABLE),
    {
        "sample": lambda m: m.sample(6, random_state=1),
        **{
            f"sample_{solver}": lambda m, solver=solver: m.sample(6, random_state=1, solver=solver)
            for solver in ("euler", "heun", "rk4", "ab2", "dopri5")
        },
        "trajectory": lambda m: m.sample(3, random_state=1, return_trajectory=True),
        "given": lambda m: m.sample(6, random_state=1, given={0: 2.0}),
        "selected": lambda m: m.sample(4, random_state=1, oversample=3),
        "score_samples": lambda m: m.score_samples(ROWS),
        "impute": lambda m: m.impute(GAPS, random_state=1),
        "impute_twice": lambda m: m.impute(GAPS, random_state=1, n_imputations=2, n_steps=2),
        "history": history,
        "attributes": attributes("n_iter_", "n_parameters_", "n_features_in_", "sample_shape_"),
        "export": lambda m: exported(m, data.noise(6, 3), n_steps=1),
        "onnx": lambda m: exported_to_onnx(m, data.noise(6, 3), n_steps=1),
        **codes_and_back(ROWS),
    },
)
configuration(
    "mixed_with_holes",
    lambda: generator().fit(HOLES),
    {
        "sample": lambda m: m.sample(8, random_state=1),
        "sample_as_trained": lambda m: m.sample(8, random_state=1, missing="as_trained"),
        "given": lambda m: m.sample(6, random_state=1, given={"kind": "b", "size": 1.5}),
        "given_as_trained": lambda m: m.sample(6, random_state=1, given=HOLES.loc[:5, ["day"]], missing="as_trained"),
        "trajectory": lambda m: m.sample(3, random_state=1, return_trajectory=True),
        "score_samples": lambda m: m.score_samples(HOLES[:12]),
        "impute": lambda m: m.impute(HOLES[:8], random_state=1),
        "impute_twice": lambda m: m.impute(HOLES[:4], random_state=1, n_imputations=2),
        **codes_and_back(HOLES[:6]),
    },
)
configuration(
    "labels",
    lambda: generator(coupling="ot", guidance_scale=1.5, path="vp").fit(MIXED, data.labels(), data.weights()),
    {
        "sample": lambda m: m.sample(8, random_state=1, return_y=True),
        "sample_one_class": lambda m: m.sample(4, "red", random_state=1),
        "guidance": lambda m: m.sample(4, ["red", "blue", "green", "red"], random_state=1, guidance_scale=3.0),
        "given": lambda m: m.sample(4, "red", random_state=1, given={"flag": True}),
        "score_samples": lambda m: m.score_samples(MIXED[:6], data.labels()[:6]),
        "score_samples_of_mixture": lambda m: m.score_samples(MIXED[:6]),
        "impute": lambda m: m.impute(HOLES[:6].astype(MIXED.dtypes.drop("flag")), "blue", random_state=1),
        "attributes": attributes("classes_", "feature_names_in_"),
        **codes_and_back(MIXED[:6], data.labels()[:6]),
    },
)
configuration(
    "numeric_conditions",
    lambda: generator(
        path="cosine", source="matched", preprocessing="standardize", loss="huber", loss_weight="min_snr",
        time_sampler="stratified", masked_share=0.0, network=MLP(width=8, conditioning="adaln"),
    ).fit(*map(torch.as_tensor, (TABLE, TABLE[:, :2] ** 2))),
    {
        "sample": lambda m: m.sample(6, random_state=1, return_y=True),
        "sample_one": lambda m: m.sample(4, [[1.0, 2.0]], random_state=1, guidance_scale=2.0),
        "score_samples": lambda m: m.score_samples(torch.as_tensor(ROWS), torch.as_tensor(ROWS[:, :2] ** 2)),
        "score_samples_of_none": lambda m: m.score_samples(torch.as_tensor(ROWS)),
        **codes_and_back(torch.as_tensor(ROWS), torch.as_tensor(ROWS[:, :2] ** 2)),
    },
)  # fmt: skip
configuration(
    "mixed_conditions",
    lambda: generator(
        source="sparse", preprocessing="minmax", loss_weight="adaptive", network=MLP(width=8, conditioning="concat"),
        categorical_features=[2],
    ).fit(TABLE, data.mixed_conditions()),
    {
        "sample": lambda m: m.sample(6, random_state=1, return_y=True),
        "sample_one": lambda m: m.sample(4, data.mixed_conditions()[:1], random_state=1),
        "impute": lambda m: m.impute(GAPS, data.mixed_conditions()[:6], random_state=1),
        **codes_and_back(ROWS, data.mixed_conditions()[:6]),
    },
)  # fmt: skip
SIGNALS = data.signals()
configuration(
    "grid_condition",
    lambda: generator(TINY_UNET, max_iter=8).fit(SIGNALS, data.coarse(SIGNALS)),
    {
        "sample": lambda m: m.sample(3, data.coarse(SIGNALS)[:3], random_state=1),
        "guidance": lambda m: m.sample(2, data.coarse(SIGNALS)[:2], random_state=1, guidance_scale=2.0),
        "trajectory": lambda m: m.sample(1, data.coarse(SIGNALS)[:1], random_state=1, return_trajectory=True),
        "score_samples": lambda m: m.score_samples(SIGNALS[:2], data.coarse(SIGNALS)[:2], n_steps=2),
        "score_samples_estimated": lambda m: m.score_samples(
            SIGNALS[:2], data.coarse(SIGNALS)[:2], n_probes=3, n_steps=2, return_error=True
        ),
        **codes_and_back(SIGNALS[:2], data.coarse(SIGNALS)[:2]),
    },
)
configuration(
    "images",
    lambda: generator(Transformer(width=8, depth=1, n_heads=2, patch_size=4), max_iter=8, loss="sobolev").fit(
        data.images(), np.arange(30) % 3
    ),
    {
        "sample": lambda m: m.sample(3, 2, random_state=1),
        "sample_shares": lambda m: m.sample(4, random_state=1, return_y=True, batch_size=2),
        "score_samples": lambda m: m.score_samples(data.images()[:2], 1, n_probes=2, n_steps=2),
        "export": lambda m: exported(m, data.noise(2, 1, 8, 8), torch.tensor([0, 2]), n_steps=1),
    },
    rare=0.02,
)
configuration(
    "volumes",
    lambda: generator(UNet(width=4, multipliers=(1,), attention_levels=0), max_iter=4, loss="multiscale").fit(
        data.volumes()
    ),
    {"sample": lambda m: m.sample(2, random_state=1), "history": history},
)
configuration(
    "mean_flow",
    lambda: generator(objective="mean_flow", guidance_scale=1.5, n_steps=2).fit(TABLE, data.labels()),
    {
        "sample": lambda m: m.sample(6, random_state=1, return_y=True),
        "sample_in_one_step": lambda m: m.sample(6, "red", random_state=1, n_steps=1),
        "given": lambda m: m.sample(6, "red", random_state=1, given={2: 1.0}),
        "trajectory": lambda m: m.sample(3, "red", random_state=1, return_trajectory=True),
        "score_samples": lambda m: m.score_samples(ROWS, "red"),
        "impute": lambda m: m.impute(GAPS, "red", random_state=1),
        "export": lambda m: exported(m, data.noise(4, 3), torch.tensor([0, 1, 2, 0])),
        **codes_and_back(ROWS, "red"),
    },
)


def stopped_early():
    options = TrainingOptions(validation_fraction=0.2, early_stopping=True, patience=1, report_period=2)
    return generator(max_iter=60, learning_rate=0.3, training=options, loss=objectives.PseudoHuberLoss(0.1)).fit(TABLE)


def trained_on():
    """Fitted, fitted on with other data from the weights that were there, and a few steps on by `partial_fit`."""
    model = generator(warm_start=True, max_iter=6).fit(TABLE, data.labels())
    return model.fit(TABLE[::2], data.labels()[::2], data.weights()[::2]).partial_fit(TABLE[::3], data.labels()[::3])


TRAINED = {"history": history, "sample": lambda m: m.sample(6, random_state=1), "iterations": attributes("n_iter_")}
configuration("early_stopping", stopped_early, TRAINED, file=False)
configuration("warm_start", trained_on, TRAINED, file=False)

# Forecasters

DAYS, WALKS, WAVES = data.days(), data.walks(), data.waves()
BEFORE, AFTER = data.pairs()


def forecasts(X, *evaluation, future=None, horizon=1, n_rolled=0):
    """Everything that a forecaster answers about the contexts X."""
    known = lambda n: {} if future is None else {"future": future(n)}  # noqa: E731
    outputs = {
        "sample": lambda m: m.sample(X, 2, random_state=1, **known(horizon)),
        "predict": lambda m: m.predict(X, **known(horizon)),
        "predict_quantiles": lambda m: m.predict_quantiles(X, (0.1, 0.5, 0.8), **known(horizon)),
        "predict_interval": lambda m: m.predict_interval(X, 0.7, **known(horizon)),
        "crps": lambda m: m.crps(*evaluation),
        "energy_score": lambda m: m.energy_score(*evaluation),
        "score": lambda m: m.score(*evaluation),
    }
    if n_rolled:
        outputs["rollout"] = lambda m: m.rollout(X, n_rolled, 2, random_state=1, **known(n_rolled))
    return outputs


FORECASTS_OF_DAYS = forecasts(
    [DAYS[:40]], DAYS, future=lambda n: data.future_prices(DAYS[:40], n), horizon=2, n_rolled=4
)
configuration(
    "series",
    lambda: forecaster(n_lags=3, horizon=2, known_columns="price").fit(DAYS),
    {
        **FORECASTS_OF_DAYS,
        "attributes": attributes("calendar_", "sample_shape_", "n_iter_", "feature_names_in_"),
    },
)
configuration(
    "series_exogenous",
    lambda: forecaster(exogenous_columns=1, target="state", context_noise=0.1).fit(WALKS),
    forecasts(WALKS[:3, -1], WALKS, n_rolled=1),
)
configuration(
    "field_trajectories",
    lambda: forecaster(TINY_UNET, n_lags=2, context_noise=0.05, max_iter=8).fit(WAVES),
    {
        **forecasts(np.stack([wave[:2] for wave in WAVES[:2]]), WAVES, n_rolled=3),
        "attributes": attributes("boundary_", "state_shape_"),
    },
)
configuration(
    "field_pairs",
    lambda: forecaster("unet", max_iter=3, boundary="periodic", loss="sobolev", n_steps=1).fit(BEFORE, AFTER),
    forecasts(BEFORE[:2], BEFORE[:4], AFTER[:4], n_rolled=2),
    file=False,
)
configuration(
    "regression",
    lambda: forecaster(warm_start=True).fit(TABLE[:, :2], TABLE[:, 1:]).fit(TABLE[:, :2], TABLE[:, 1:]),
    forecasts(ROWS[:, :2], ROWS[:, :2], ROWS[:, 1:]),
)
configuration(
    "mixed_regression",
    lambda: forecaster().fit(HOLES, pd.Series(data.amounts(), name="rent")),
    forecasts(HOLES[:8], HOLES[:30], data.amounts()[:30]),
)

# Detectors


def verdicts(X):
    """Everything that a detector answers about X."""
    outputs = {
        name: lambda m, name=name: getattr(m, name)(X)
        for name in ("score_samples", "decision_function", "predict", "explain")
    }
    return {**outputs, "offset": attributes("offset_")}


def p_values(X):
    return {"p_values": lambda m: m.p_values(X)}


NEW_ROWS = data.with_outliers()[10:20]
for score in SCORES:
    configuration(
        f"detector_{score}",
        lambda score=score: detector(method=score).fit(TABLE),
        verdicts(NEW_ROWS) | p_values(NEW_ROWS),
        file=score in ("combined", "reconstruction"),
    )
configuration(
    "detector_folds",
    lambda: detector(n_folds=2).fit(HOLES),
    verdicts(HOLES[:10]) | p_values(HOLES[:10]),
)
configuration(
    "detector_classes",
    lambda: detector(method="latent", contamination=0.1, trim=0.1).fit(
        data.with_outliers(), data.labels(), data.weights()
    ),
    verdicts(NEW_ROWS),
)
configuration(
    "detector_signals",
    lambda: detector(TINY_UNET, max_iter=8, warm_start=True).fit(SIGNALS).partial_fit(SIGNALS),
    verdicts(SIGNALS[:4]) | p_values(SIGNALS[:4]),
)

# Students


@functools.cache
def teacher(name):
    return CONFIGURATIONS[name].make()


JUMPS = {
    "sample": lambda m: m.sample(6, "red", random_state=1),
    "sample_in_two_steps": lambda m: m.sample(6, "red", random_state=1, n_steps=2),
    "given": lambda m: m.sample(4, "red", random_state=1, given={"kind": "a"}),
    "trajectory": lambda m: m.sample(2, "red", random_state=1, n_steps=2, return_trajectory=True),
    "impute": CONFIGURATIONS["labels"].outputs["impute"],
    "history": history,
    "attributes": attributes("n_iter_", "classes_", "sample_shape_"),
}
BACK = codes_and_back(MIXED[:6], data.labels()[:6])
STUDENTS = {
    "student_progressive": (student, {"inverse": True, "n_stages": 2}, JUMPS | BACK),
    "student_semigroup": (student, {"method": "semigroup", "n_steps": 2}, JUMPS),
    "student_unfolded": (student, {"method": "semigroup", "fold": False, "n_steps": 2}, JUMPS),
    "student_without_teacher": (student, {"method": "semigroup", "fold": False, "ema_target": True}, JUMPS),
    "student_lagrangian": (student, {"method": "lagrangian", "guidance_scale": 2.0}, JUMPS),
    "student_reflow": (student, {"method": "reflow", "n_steps": 2}, JUMPS | BACK),
}
for name, (build, parameters, outputs) in STUDENTS.items():
    kept = {key: value for key, value in outputs.items() if key != "history"}
    configuration(
        name,
        lambda build=build, parameters=parameters: build(teacher("labels"), **parameters).fit(MIXED, data.labels()),
        kept if name == "student_without_teacher" else outputs,
    )
configuration(
    "student_of_table",
    lambda: student(teacher("table")).fit(),
    {
        "sample": lambda m: m.sample(6, random_state=1),
        "export": lambda m: exported(m, data.noise(6, 3)),
    },
)
configuration(
    "student_of_holes",
    lambda: student(teacher("mixed_with_holes"), "lagrangian").fit(HOLES),
    {
        name: CONFIGURATIONS["mixed_with_holes"].outputs[name]
        for name in ("sample", "sample_as_trained", "given", "impute")
    },
)
configuration(
    "student_of_series",
    lambda: student(teacher("series")).fit(DAYS),
    FORECASTS_OF_DAYS,
)

# Synthetic rows

configuration(
    "over_sampler_classes",
    lambda: over_sampler(min_odds=1.5).fit(TABLE, data.rare_class()),
    {"fit_resample": lambda m: m.fit_resample(TABLE, data.rare_class())},
    file=False,
)
configuration(
    "over_sampler_amounts",
    lambda: over_sampler(sampling_strategy=0.2).fit(MIXED, data.amounts()),
    {"fit_resample": lambda m: m.fit_resample(MIXED, data.amounts())},
    file=False,
)
configuration(
    "augmented_classifier",
    lambda: augmented_classifier(ratio=1.0).fit(TABLE, data.rare_class(), data.weights()),
    {"predict_proba": lambda m: m.predict_proba(ROWS), "attributes": attributes("n_synthetic_", "classes_")},
    file=False,
)
configuration(
    "augmented_regressor",
    lambda: augmented_regressor().fit(TABLE, data.amounts()),
    {"predict": lambda m: m.predict(ROWS), "attributes": attributes("n_synthetic_")},
    file=False,
)
