import pytest
import torch
from closed_forms import FiniteDataFlow, GaussianFlow

from flowmatch.flow import (
    PATHS,
    IndependentCoupling,
    LinearPath,
    NormalSource,
    OptimalTransportCoupling,
    UniformTimes,
)
from flowmatch.objectives import (
    LOSS_WEIGHTS,
    AdaptiveWeight,
    CallableWeight,
    L2Loss,
    MinSNRWeight,
    PseudoHuberLoss,
    SNRWeight,
    VelocityObjective,
)

T = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
ONES = torch.ones_like(T)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def objective(d=2, **changes):
    parts = {
        "path": LinearPath(),
        "source": NormalSource(),
        "coupling": IndependentCoupling(),
        "time_sampler": UniformTimes(),
        "source_scale": torch.ones(d, dtype=torch.float64),
    }
    return VelocityObjective(**{**parts, **changes})


@pytest.mark.parametrize("name", PATHS)
def test_the_conditional_velocity_has_zero_loss(name):
    path = PATHS[name]()
    x0, x1 = torch.randn(10, 3, dtype=torch.float64), torch.randn(10, 3, dtype=torch.float64)
    target = path.velocity(x0, x1, T)
    losses = objective(3, path=path).residual_loss(lambda x, t, c: target, x0, x1, T)
    assert losses.shape == (10,)
    assert losses.abs().max() == 0


def test_the_marginal_field_beats_its_neighbours_and_its_loss_is_the_known_variance():
    """Gaussian data: Var(x1 - x0 | x_t) = s^2 / S(t)^2; its mean over uniform times is the least loss there is."""
    flow = GaussianFlow(0.7, 0.5)
    x1 = 0.7 + 0.5 * torch.randn(200_000, 1, dtype=torch.float64, generator=generator())

    def loss(shift=0.0, scale=1.0):
        def field(x, t, c):
            return scale * flow.velocity(x, t[:, None]) + shift

        return objective(1)(field, x1, None, generator(1)).mean().item()

    times = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    least = torch.trapezoid(0.25 / flow.spread(times) ** 2, times).item()
    assert loss() == pytest.approx(least, rel=0.01)
    assert loss() < min(loss(shift=0.1), loss(shift=-0.1), loss(scale=0.9), loss(scale=1.1))


def test_gradients_of_the_conditional_and_the_marginal_loss_agree():
    """The expectation over many draws, for a linear model v = A x + b on a finite data set."""
    points = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.5]], dtype=torch.float64)
    field = FiniteDataFlow(points, LinearPath())
    rows = torch.randint(0, 3, (200_000,), generator=generator())
    x1, x0 = points[rows], torch.randn(200_000, 2, dtype=torch.float64, generator=generator(1))
    t = 0.9 * torch.rand(200_000, dtype=torch.float64, generator=generator(2))
    x = LinearPath().interpolate(x0, x1, t)
    gradients = []
    for target in (LinearPath().velocity(x0, x1, t), field.velocity(x, t)):
        A = torch.tensor([[0.3, -0.1], [0.2, 0.4]], dtype=torch.float64, requires_grad=True)
        b = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        L2Loss()(x @ A.T + b - target, t).mean().backward()
        gradients.append(torch.cat([A.grad.flatten(), b.grad]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=0.02, rtol=0)


def test_weights_of_the_linear_path_are_the_formulas():
    path = LinearPath()
    expected = {
        "uniform": ONES,
        "data_end": T**2,
        "noise_end": (1 - T) ** 2,
        "snr": T**2,
        "min_snr": torch.minimum(T**2, 5 * (1 - T) ** 2),
        "adaptive": 1 / (2 + 1e-3) * ONES,
    }
    for name, weight in expected.items():
        torch.testing.assert_close(LOSS_WEIGHTS[name]()(T, 2 * ONES, path), weight)


@pytest.mark.parametrize("name", PATHS)
def test_snr_weights_turn_a_velocity_error_into_the_weighted_data_error(name):
    """w_velocity |dv|^2 must equal w_data |dx1|^2, where dx1 is what the velocity's error does to the denoised data."""
    path = PATHS[name]()
    x, v, dv = (torch.randn(10, 1, dtype=torch.float64) for _ in range(3))
    data_error = (path.data_from_velocity(v + dv, x, T) - path.data_from_velocity(v, x, T)).square()[:, 0]
    velocity_error = dv.square()[:, 0]
    snr = path.signal_to_noise(T)
    for weight, of_data in (
        (SNRWeight(max_weight=1e9), snr),
        (SNRWeight(inverse=True, max_weight=1e9), 1 / snr),
        (MinSNRWeight(gamma=2.0), snr.clamp(max=2.0)),
    ):
        torch.testing.assert_close(weight(T, velocity_error, path) * velocity_error, of_data * data_error)


def test_diverging_weights_are_clipped():
    assert SNRWeight(inverse=True, max_weight=7.0)(torch.zeros(1), torch.ones(1), LinearPath()).item() == 7.0
    assert torch.isfinite(MinSNRWeight()(torch.ones(1), torch.ones(1), LinearPath())).all()


def test_adaptive_weight_passes_no_gradient_and_power_zero_is_the_plain_loss():
    error = torch.tensor([4.0], requires_grad=True)
    weight = AdaptiveWeight(power=0.5)(torch.ones(1), error, LinearPath())
    assert not weight.requires_grad
    assert AdaptiveWeight(power=0.0)(torch.ones(1), error, LinearPath()).item() == 1


def test_a_callable_weight_multiplies_the_loss():
    x0, x1 = torch.zeros(10, 2, dtype=torch.float64), torch.ones(10, 2, dtype=torch.float64)
    weighted = objective(weight=CallableWeight(lambda t: 3 * t)).residual_loss(lambda x, t, c: 0 * x, x0, x1, T)
    torch.testing.assert_close(weighted, 3 * T)


def test_pseudo_huber_is_quadratic_near_zero_and_linear_far_out():
    loss = PseudoHuberLoss(scale=1.0)
    small, large = torch.full((1, 4), 1e-3, dtype=torch.float64), torch.full((1, 4), 1e4, dtype=torch.float64)
    assert loss(small, T[:1]).item() == pytest.approx(small.square().sum().item() / (2 * 2), rel=1e-4)
    assert loss(large, T[:1]).item() == pytest.approx(large.norm().item(), rel=1e-3)


def test_dropped_conditions_are_zeros_in_their_share():
    seen = []

    def network(x, t, condition):
        seen.append(condition)
        return x

    condition = torch.ones(4000, 3, dtype=torch.float64)
    objective(condition_dropout=0.25)(network, torch.randn(4000, 2, dtype=torch.float64), condition, generator())
    dropped = (seen[0] == 0).all(1)
    assert dropped.double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert ((seen[0] == 1).all(1) | dropped).all()


def test_coupling_stays_inside_classes_and_leaves_numeric_conditions_alone():
    x1 = torch.randn(64, 2, dtype=torch.float64, generator=generator())
    classes = torch.eye(2, dtype=torch.float64)[torch.arange(64) % 2]
    noises = {}
    for labelled in (True, False):
        coupled = objective(coupling=OptimalTransportCoupling(), conditions_are_classes=labelled)
        noises[labelled] = coupled._pair(coupled.source.draw(64, coupled.source_scale, generator(3)), x1, classes)
    drawn = NormalSource().draw(64, torch.ones(2, dtype=torch.float64), generator(3))
    torch.testing.assert_close(noises[False], drawn)
    for label in (0, 1):
        own = torch.arange(64) % 2 == label
        assert sorted(noises[True][own].tolist()) == sorted(drawn[own].tolist())
    assert not torch.equal(noises[True], drawn)


def test_times_of_the_vp_path_start_at_its_first_time():
    drawn = objective(path=PATHS["vp"](first_time=0.2)).draw_times(1000, generator())
    assert 0.2 <= drawn.min() < 0.21
    assert drawn.max() <= 1
