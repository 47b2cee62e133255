"""Parameters of components inside estimators: replaced where they are set, and nowhere else."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from flowmatch import (
    MLP,
    ConditionalForecaster,
    DistilledFlowMap,
    FlowAnomalyDetector,
    FlowMatchingGenerator,
    TrainingOptions,
)
from flowmatch.anomaly import Neighbors
from flowmatch.flow import FixedSteps, LogitNormalTimes, OptimalTransportCoupling, SparseSource, VariancePreservingPath
from flowmatch.objectives import (
    ChannelWeighted,
    MeanFlow,
    MinSNRWeight,
    MultiScale,
    PseudoHuberLoss,
    ResidualLoss,
    Sobolev,
)
from flowmatch.preprocessing import QuantileNormal
from flowmatch.training import SampleMonitor

X = np.random.default_rng(0).normal(size=(60, 3))

SHARED = {
    "network": (MLP(), "width", 128),
    "path": (VariancePreservingPath(), "first_time", 0.01),
    "source": (SparseSource(), "dropout_rate", 0.3),
    "coupling": (OptimalTransportCoupling(), "block_size", 32),
    "time_sampler": (LogitNormalTimes(), "mean", 1.0),
    "loss": (PseudoHuberLoss(), "scale", 0.1),
    "loss_weight": (MinSNRWeight(), "gamma", 2.0),
    "objective": (MeanFlow(), "warmup", 0.1),
    "preprocessing": (QuantileNormal(), "max_knots", 50),
    "training": (TrainingOptions(), "ema_decay", 0.9),
}


@pytest.mark.parametrize("name", SHARED)
def test_estimators_that_share_a_component_do_not_change_together(name):
    component, inner, value = SHARED[name]
    before = copy.deepcopy(component)
    one, other = (FlowMatchingGenerator(**{name: component}) for _ in range(2))
    one.set_params(**{f"{name}__{inner}": value})
    assert getattr(getattr(one, name), inner) == value
    assert getattr(other, name) is component
    assert component == before


@pytest.mark.parametrize("estimator", [FlowMatchingGenerator, ConditionalForecaster, FlowAnomalyDetector])
def test_this_holds_for_every_estimator_and_for_what_is_inside_components(estimator):
    shared = ChannelWeighted((1.0, 2.0), MultiScale(loss=Sobolev(beta=0.1)))
    one, other = estimator(loss=shared), estimator(loss=shared)
    one.set_params(loss__loss__loss__beta=0.7, loss__weights=(1, 1))
    assert one.get_params()["loss__loss__loss__beta"] == 0.7
    assert other.loss is shared
    assert shared.loss.loss.beta == 0.1


def test_scores_and_step_samplers_are_not_changed_either():
    neighbors, steps = Neighbors(), FixedSteps()
    FlowAnomalyDetector(method=neighbors).set_params(method__n_neighbors=3)
    student = DistilledFlowMap(FlowMatchingGenerator(), step_sampler=steps).set_params(step_sampler__jitter=0.5)
    assert (neighbors, steps) == (Neighbors(), FixedSteps())
    assert student.step_sampler == FixedSteps(jitter=0.5)


WRONG = [
    ({"max_iter": 3, "network__wdth": 1}, "MLP has no parameter 'wdth'. Its parameters are width, depth"),
    ({"network__width": 3, "network__wdth": 1}, "no parameter 'wdth'"),
    ({"network__width": 3, "training__betas__x": 1}, "no parameter 'betas__x': its betas is"),
    ({"network__width": 3, "max_itr": 1}, "Invalid parameter 'max_itr' for estimator"),
    ({"network__width": 3, "max_itr__x": 1}, "Invalid parameter 'max_itr"),
    ({"network__width": 3, "max_iter__x": 1}, "no parameter max_iter__x: max_iter is 7"),
    ({"max_iter": 3, "preprocessing__max_knots": 5}, "preprocessing='auto' has no parameters of its own"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(wrong) for wrong, _ in WRONG])
def test_a_call_that_raises_changes_nothing(wrong, message):
    network = MLP(width=16)
    model = FlowMatchingGenerator(network, max_iter=7, training=TrainingOptions())
    for estimator, prefix in ((model, ""), (DistilledFlowMap(model, max_iter=9), "estimator__")):
        before = dict(estimator.get_params())
        with pytest.raises(ValueError, match=message):
            estimator.set_params(**{f"{prefix}{name}": value for name, value in wrong.items()})
        assert estimator.get_params() == before
        assert model.network is network
    student = DistilledFlowMap(model, max_iter=9)
    with pytest.raises(ValueError, match="no parameter 'wdth'"):
        student.set_params(max_iter=5, loss="huber", loss__scale=0.1, estimator__network__wdth=1)
    assert (student.max_iter, student.loss, model.network) == (9, DistilledFlowMap(model).loss, network)


def test_names_and_none_become_components():
    model = FlowMatchingGenerator(network="mlp", training=None).set_params(
        network__width=16, network__depth=1, training__ema_decay=0.9, coupling="ot", coupling__block_size=8
    )
    assert model.network == MLP(width=16, depth=1)
    assert model.training == TrainingOptions(ema_decay=0.9)
    assert model.coupling == OptimalTransportCoupling(8)


def test_searches_pipelines_and_students_reach_nested_parameters():
    network = MLP(width=16)
    model = FlowMatchingGenerator(network, max_iter=4, device="cpu", random_state=0)
    search = GridSearchCV(model, {"network__width": [8, 12]}, cv=2, error_score="raise").fit(X)
    assert search.best_estimator_.network.width == search.best_params_["network__width"]
    pipeline = make_pipeline(StandardScaler(), clone(model).set_params(network=network))
    pipeline.set_params(flowmatchinggenerator__network__width=8)
    assert pipeline[-1].network == MLP(width=8)
    search = GridSearchCV(pipeline, {"flowmatchinggenerator__network__width": [8, 12]}, cv=2, error_score="raise")
    assert search.fit(X).best_estimator_[-1].network.width in (8, 12)
    student = DistilledFlowMap(model).set_params(estimator__network__width=24, estimator__max_iter=5)
    assert (model.network, model.max_iter) == (MLP(width=24), 5)
    assert student.get_params()["estimator__network__width"] == 24
    assert network == MLP(width=16)


def test_what_was_fitted_stays_with_its_parameters():
    model = FlowMatchingGenerator(MLP(width=8), max_iter=2, device="cpu", random_state=0).fit(X)
    before = model.sample(3, random_state=0)
    model.set_params(network__width=12)
    np.testing.assert_array_equal(model.sample(3, random_state=0), before)


def test_a_monitor_with_other_parameters_begins_anew():
    monitor = SampleMonitor(np.mean, n_samples=10)
    monitor.history_ = {"step": [1], "value": [0.5]}
    other = monitor.replace(period=3)
    assert (other.period, other.n_samples, monitor.period) == (3, 10, 10)
    assert not hasattr(other, "history_")


# -- printing -------------------------------------------------------------------------------------------------------


def test_components_print_what_differs_from_their_defaults():
    assert repr(MLP()) == "MLP()"
    assert repr(MLP(width=8, dropout=0.1)) == "MLP(width=8, dropout=0.1)"
    assert repr(MeanFlow()) == "MeanFlow()"  # whose defaults are components
    assert repr(ChannelWeighted([1, 2], MultiScale(loss=Sobolev(beta=0.1)))) == (
        "ChannelWeighted(weights=[1, 2], loss=MultiScale(loss=Sobolev(beta=0.1)))"
    )
    assert repr(QuantileNormal().fit(X)) == "QuantileNormal()"
    assert repr(SampleMonitor(max, period=3)) == "SampleMonitor(metric=<built-in function max>, period=3)"


def test_estimators_print_their_components_in_short():
    model = FlowMatchingGenerator(MLP(width=8), training=TrainingOptions(ema_decay=0.9))
    assert repr(model) == (
        "FlowMatchingGenerator(network=MLP(width=8),\n                      training=TrainingOptions(ema_decay=0.9))"
    )


def test_everything_is_printed_if_scikit_learn_is_told_so():
    with config_context(print_changed_only=False):
        assert repr(LogitNormalTimes(mean=1.0)) == "LogitNormalTimes(mean=1.0, std=1.0, stratified=True)"


def test_components_of_users_print_alike_or_as_they_say():
    @dataclass(frozen=True)
    class Mine(ResidualLoss):
        power: float
        scale: float = 1.0

        def __call__(self, residual, t):
            return residual.flatten(1).abs().pow(self.power).mean(1)

    @dataclass(frozen=True)
    class Other(Mine):
        def __repr__(self):
            return "other"

    assert repr(Mine(1.0)).endswith("Mine(power=1.0)")
    assert repr(Other(1.0)) == "other"
