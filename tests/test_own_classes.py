"""Files hold what users derive from the library's classes, wherever these are defined when the file is read."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import flowmatch
from flowmatch import ConditionalForecaster, DistilledFlowMap, FlowMatchingGenerator, flow, objectives
from flowmatch.core.storable import ESTIMATORS, STORABLE, storable
from flowmatch.networks import MLP
from flowmatch.persistence.codec import ValueDecoder, ValueEncoder
from flowmatch.preprocessing import ColumnTransform, Container

if TYPE_CHECKING:
    from nowhere import Unknown

X = np.random.default_rng(0).normal(size=(60, 2))
TINY = {"network": MLP(width=8, depth=1), "max_iter": 3, "n_steps": 2, "random_state": 0, "device": "cpu"}


@dataclass(frozen=True)
class PowerPath(flow.LinearPath):
    """A straight line that starts slowly."""

    power: float = 2.0

    def data_scale(self, t):
        return t**self.power

    def noise_scale(self, t):
        return 1 - t**self.power

    def data_rate(self, t):
        return self.power * t ** (self.power - 1)

    def noise_rate(self, t):
        return -self.data_rate(t)


@dataclass(frozen=True)
class ScaledLoss(objectives.ResidualLoss):
    """Another loss, times a factor."""

    factor: float = 2.0
    inner: objectives.ResidualLoss = objectives.L2Loss()
    channels: tuple[int, ...] = ()
    width: int = None
    mode: Literal["mean", "sum"] = "mean"

    def __call__(self, residual, t):
        return self.factor * self.inner(residual, t)


@dataclass(frozen=True)
class Shift(ColumnTransform):
    """Takes the median off each column."""

    unknown: "Unknown | None" = None
    median_: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def fit(self, X, weight=None, tolerance=0.0):
        object.__setattr__(self, "median_", np.median(X, axis=0))
        return self

    def transform(self, X):
        return X - self.median_

    def inverse_transform(self, Z):
        return Z + self.median_

    def log_slope(self, X):
        return np.zeros_like(X)


class Doubled(FlowMatchingGenerator):
    """A generator with a parameter of its own."""

    def __init__(self, network="auto", *, max_iter=None, n_steps=None, device="auto", random_state=None, factor=2.0):
        super().__init__(network, max_iter=max_iter, n_steps=n_steps, device=device, random_state=random_state)
        self.factor = factor

    def sample(self, *arguments, **named):
        return self.factor * super().sample(*arguments, **named)


class OwnForecaster(ConditionalForecaster):
    """A forecaster of the user's own."""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def round_trip(model, path):
    model.save(path)
    return flowmatch.load(path, device="cpu")


@pytest.mark.parametrize(
    "parameters",
    [
        {"path": PowerPath(power=3.0)},
        {"loss": ScaledLoss(factor=0.5, inner=objectives.PseudoHuberLoss(0.1), channels=[0, 1])},
        {"preprocessing": Shift()},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_components_of_users_come_back(parameters, path):
    model = FlowMatchingGenerator(**{**TINY, **parameters}).fit(X)
    loaded = round_trip(model, path)
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), model.sample(5, random_state=0))
    np.testing.assert_array_equal(
        loaded.partial_fit(X).sample(5, random_state=0), model.partial_fit(X).sample(5, random_state=0)
    )
    ((name, value),) = parameters.items()
    assert type(getattr(loaded, name)) is type(value)
    if name != "loss":
        assert getattr(loaded, name) == value
    else:
        assert loaded.loss == ScaledLoss(0.5, objectives.PseudoHuberLoss(0.1), (0, 1))  # a list where it says tuple


def test_estimators_of_users_come_back(path):
    model = Doubled(**TINY, factor=3.0).fit(X)
    loaded = round_trip(model, path)
    assert (type(loaded), loaded.factor) == (Doubled, 3.0)
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), model.sample(5, random_state=0))
    student = DistilledFlowMap(model, max_iter=2, n_pairs=20, random_state=0).fit(X)
    loaded = round_trip(student, path)
    assert type(loaded.estimator) is Doubled
    np.testing.assert_array_equal(loaded.sample(5, random_state=0), student.sample(5, random_state=0))
    series = X.reshape(4, 15, 2)
    forecaster = OwnForecaster(**TINY, n_samples=4).fit(series)
    loaded = round_trip(forecaster, path)
    assert type(loaded) is OwnForecaster
    np.testing.assert_array_equal(loaded.predict(series[:, -1]), forecaster.predict(series[:, -1]))


LOAD = """
import sys
import flowmatch
folder, *paths = sys.argv[1:]
if folder:
    sys.path.insert(0, folder)
    import test_own_classes
for path in paths:
    try:
        print(type(flowmatch.load(path)).__name__)
    except ValueError as error:
        print(error)
"""


def test_a_process_that_lacks_the_class_says_so(tmp_path):
    models = {
        "estimator 'Doubled'": Doubled(**TINY),
        "component 'PowerPath'": FlowMatchingGenerator(**TINY, path=PowerPath()),
    }
    paths = [str(tmp_path / name) for name in models]
    for model, path in zip(models.values(), paths, strict=True):
        model.fit(X).save(path)
    found = []
    for folder in ("", str(Path(__file__).parent)):
        command = [sys.executable, "-c", LOAD, folder, *paths]
        found.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines())
    for said, name in zip(found[0], models, strict=True):
        assert f"unknown {name}: if it is your own, import what defines it first" in said
    assert found[1] == ["Doubled", "FlowMatchingGenerator"]


def test_a_class_of_the_librarys_name_is_not_saved_as_the_librarys(path):
    own_path = type("LinearPath", (flow.LinearPath,), {})
    with pytest.raises(ValueError, match=r"parameter path=.*cannot be written to a file .*LinearPath is not a class"):
        FlowMatchingGenerator(**TINY, path=own_path()).fit(X).save(path)
    own = type("FlowMatchingGenerator", (FlowMatchingGenerator,), {"__module__": __name__})
    with pytest.raises(ValueError, match="not a class that files know, since another one has its name; save it with"):
        own(**TINY).fit(X).save(path)
    assert (STORABLE["LinearPath"], ESTIMATORS["FlowMatchingGenerator"]) == (flow.LinearPath, FlowMatchingGenerator)
    assert not path.exists()


def test_the_class_of_a_cell_that_is_run_again_is_the_newer_one():
    def declare():
        @dataclass(frozen=True)
        class Rerun(objectives.L2Loss):
            pass

        return Rerun

    first, second = declare(), declare()
    try:
        assert first is not second
        assert STORABLE["Rerun"] is second
    finally:
        del STORABLE["Rerun"]


def test_a_field_of_another_type_than_declared_is_refused_when_it_is_written(path):
    model = FlowMatchingGenerator(**TINY, loss=ScaledLoss(factor=1.0)).fit(X)
    object.__setattr__(model.loss, "mode", 3)
    with pytest.warns(UserWarning, match="parameter loss=.*cannot be written to a file: set it again"):
        model.save(path)
    model = FlowMatchingGenerator(**TINY, path=PowerPath(power=True)).fit(X)
    with pytest.raises(ValueError, match=r"parameter path=.*cannot be written to a file \(.*its power does not fit"):
        model.save(path)


def test_a_new_fitted_class_needs_one_line():
    @storable
    @dataclass(frozen=True)
    class Found:
        names: tuple[str, ...]
        values: NDArray[np.float64]
        weights: dict[str, torch.Tensor]
        container: Container
        later: float | None = None

        def check(self):
            if self.values.ndim != 1:
                raise ValueError("its values are no vector.")

    found = Found(("a", "b"), np.arange(2.0), {"x": torch.ones(2)}, Container.of(X))
    encoder = ValueEncoder()
    try:
        saved = encoder.value("found", found)
        again = ValueDecoder(encoder.tensors, None, "cpu").value(saved)
        assert (again.names, again.container, again.later) == (found.names, found.container, None)
        np.testing.assert_array_equal(again.values, found.values)
        assert again.weights["x"].tolist() == [1.0, 1.0]
        with pytest.raises(ValueError, match="no vector"):
            ValueDecoder({**encoder.tensors, "found.values": torch.ones(2, 2).double()}, None, "cpu").value(saved)
    finally:
        del STORABLE["Found"]
