import pytest
import torch

from flowmatch import MLP
from flowmatch.networks.embeddings import sinusoidal_features
from flowmatch.networks.mlp import CONDITIONINGS


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize("shape", [(1,), (5,), (2, 4), (1, 3, 3)])
@pytest.mark.parametrize("condition_size", [0, 3])
def test_output_has_the_samples_shape_and_starts_at_zero(conditioning, shape, condition_size):
    network = MLP(width=8, conditioning=conditioning, dropout=0.1)(shape, condition_size)
    condition = torch.randn(4, condition_size) if condition_size else None
    output = network(torch.randn(4, *shape), torch.rand(4), condition)
    assert output.shape == (4, *shape)
    assert (output == 0).all()


def shaken(conditioning, condition_size=3, flow_map=False):
    torch.manual_seed(0)
    network = MLP(width=8, conditioning=conditioning)((5,), condition_size, flow_map)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return network


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_network_depends_on_sample_time_and_condition(conditioning):
    network = shaken(conditioning)
    x, t, c = torch.randn(1, 5), torch.tensor([0.3]), torch.randn(1, 3)
    base = network(x, t, c)
    for changed in (network(x + 1, t, c), network(x, t + 0.2, c), network(x, t, c + 1)):
        assert not torch.allclose(base, changed)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_no_condition_equals_zeros(conditioning):
    network = shaken(conditioning)
    x, t = torch.randn(4, 5), torch.rand(4)
    torch.testing.assert_close(network(x, t), network(x, t, torch.zeros(4, 3)))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_flow_map_takes_a_step_and_a_velocity_refuses_it(conditioning):
    x, t = torch.randn(4, 5), torch.rand(4)
    flow_map = shaken(conditioning, flow_map=True)
    assert not torch.allclose(flow_map(x, t, step=torch.zeros(4)), flow_map(x, t, step=torch.ones(4)))
    with pytest.raises(ValueError, match="needs the increment"):
        flow_map(x, t)
    with pytest.raises(ValueError, match="takes no `step`"):
        shaken(conditioning)(x, t, step=t)


def test_wrong_condition_size_is_named():
    with pytest.raises(ValueError, match="conditions of 3 elements, but got 2"):
        shaken("film")(torch.randn(4, 5), torch.rand(4), torch.zeros(4, 2))


@pytest.mark.parametrize(
    "bad", [{"width": 0}, {"depth": 1.5}, {"dropout": 1.0}, {"n_time_features": 3}, {"conditioning": "add"}]
)
def test_bad_parameters_are_named(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MLP(**bad)((3,), 0)


def test_component_is_cloned_printed_and_searched_like_an_estimator():
    from sklearn.base import clone

    component = MLP(width=7)
    assert clone(component) == component
    assert "width=7" in repr(component)
    assert component.replace(width=9).get_params()["width"] == 9
    assert component.width == 7
    with pytest.raises(ValueError, match="no parameter 'size'.*width"):
        component.replace(size=1)
    with pytest.raises(AttributeError):
        component.width = 3


def test_time_features_tell_times_apart_and_are_bounded():
    features = sinusoidal_features(torch.linspace(0, 1, 101), 16)
    assert features.shape == (101, 16)
    assert features.abs().max() <= 1
    distances = torch.cdist(features, features) + 10 * torch.eye(101)
    assert distances.min() > 0.01


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
@pytest.mark.parametrize(("condition_size", "given"), [(0, False), (3, False), (3, True)])
@pytest.mark.parametrize("n_rows", [1, 7])
def test_one_time_for_all_rows_gives_what_a_full_vector_of_times_gives(conditioning, condition_size, given, n_rows):
    network = shaken(conditioning, condition_size).double()
    x, t = torch.randn(n_rows, 5, dtype=torch.float64), torch.tensor(0.37, dtype=torch.float64)
    condition = torch.randn(n_rows, 3, dtype=torch.float64) if given else None
    found, gradients = [], []
    for times in (t.expand(n_rows), torch.full((n_rows,), 0.37, dtype=torch.float64)):
        found.append(network(x, times, condition))
        gradients.append(torch.autograd.grad(found[-1].square().sum(), tuple(network.parameters())))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
