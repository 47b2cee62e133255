import math

import numpy as np
import pytest
import torch
from closed_forms import GaussianFlow

from flowmatch.flow import ADAPTIVE, FIXED_STEP, CosinePath, guide, integrate, time_grid

FLOW = GaussianFlow(mean=0.7, std=0.3)
X0 = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


CURVED = GaussianFlow(mean=0.7, std=0.3, path=CosinePath())


def grid(n, end=0.8):
    return torch.linspace(0, end, n + 1, dtype=torch.float64)


def observed_order(flow, method, warp=1.0):
    """Binary logarithm of how much the error falls when the steps are halved."""
    exact = flow.carry(X0, grid(1)[0], grid(1)[-1])
    errors = [
        (integrate(flow.velocity, X0, 0.8 * grid(n, 1.0) ** warp, method) - exact).norm().item() for n in (128, 256)
    ]
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("rk4", 4), ("ab2", 2)])
def test_solver_converges_at_its_order(method, order):
    assert observed_order(CURVED, method) == pytest.approx(order, abs=0.15)


def test_midpoint_gains_an_order_on_the_linear_path_of_gaussian_data():
    """Its leading error is proportional to the third derivative of S(t)^2, which is quadratic in t there."""
    assert observed_order(FLOW, "midpoint") == pytest.approx(3, abs=0.1)
    assert observed_order(FLOW, "heun") == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("method", FIXED_STEP)
def test_solver_is_of_full_order_on_an_uneven_grid(method):
    """Steps that grow: two-step methods must weigh their history by the ratio of neighbouring steps."""
    orders = {"euler": 1, "rk4": 4}
    assert observed_order(CURVED, method, warp=1.5) == pytest.approx(orders.get(method, 2), abs=0.25)


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "bosh3", "adaptive_heun", "fehlberg2"])
def test_adaptive_solver_reaches_its_tolerance_and_stays_in_the_interval(method):
    exact = FLOW.carry(X0, grid(1)[0], grid(1)[-1])
    seen = []

    def velocity(x, t):
        seen.append(float(t))
        return FLOW.velocity(x, t)

    result = integrate(velocity, X0, grid(1), method, rtol=1e-7, atol=1e-7)
    assert 0 <= min(seen) <= max(seen) <= 0.8 + 1e-9, "evaluated outside the interval"
    assert (result - exact).abs().max() < 1e-4
    assert method in ADAPTIVE


@pytest.mark.parametrize("method", FIXED_STEP)
def test_forwards_and_back_returns_to_the_start(method):
    times = grid(400)
    there = integrate(FLOW.velocity, X0, times, method)
    back = integrate(FLOW.velocity, there, times.flip(0), method)
    assert (back - X0).abs().max() < (2e-2 if method == "euler" else 2e-4)


@pytest.mark.parametrize("method", FIXED_STEP)
def test_a_rows_result_does_not_depend_on_the_other_rows(method):
    together = integrate(FLOW.velocity, X0, grid(9), method)
    alone = torch.cat([integrate(FLOW.velocity, row[None], grid(9), method) for row in X0])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


@pytest.mark.parametrize("method", [*FIXED_STEP, "dopri5"])
def test_trajectory_begins_at_the_start_and_ends_at_the_result(method):
    states = integrate(FLOW.velocity, X0, grid(6), method, return_trajectory=True)
    assert states.shape == (7, 7, 3)
    torch.testing.assert_close(states[0], X0)
    torch.testing.assert_close(states[-1], integrate(FLOW.velocity, X0, grid(6), method), rtol=1e-4, atol=1e-4)


def test_two_step_method_starts_with_a_midpoint_step_and_then_extrapolates():
    times = grid(2)
    first = integrate(FLOW.velocity, X0, times[:2], "midpoint")
    torch.testing.assert_close(integrate(FLOW.velocity, X0, times[:2], "ab2"), first)
    slope = 1.5 * FLOW.velocity(first, times[1]) - 0.5 * FLOW.velocity(X0, times[0])
    torch.testing.assert_close(integrate(FLOW.velocity, X0, times, "ab2"), first + (times[2] - times[1]) * slope)


@pytest.mark.parametrize(
    ("method", "n_steps", "kept"),
    [
        ("euler", 10, [0.879, 0.823, 0.398]),
        ("midpoint", 5, [0.999, 0.996, 0.603]),
        ("midpoint", 10, [1.000, 0.999, 0.888]),
    ],
)
def test_share_of_the_standard_deviation_that_few_steps_keep(method, n_steps, kept):
    """Ten Euler steps do not equal five midpoint steps: they lose spread."""
    for std, expected in zip([1.0, 0.3, 0.05], kept, strict=True):
        flow = GaussianFlow(0.0, std)
        x = integrate(
            flow.velocity, torch.ones(1, 1, dtype=torch.float64), time_grid(n_steps, dtype=torch.float64), method
        )
        assert x.item() / std == pytest.approx(expected, abs=1e-3)


def test_one_euler_step_gives_the_conditional_mean_without_spread():
    x = integrate(FLOW.velocity, X0, time_grid(1, dtype=torch.float64), "euler")
    torch.testing.assert_close(x, torch.full_like(x, 0.7))


def test_one_euler_step_is_exact_when_the_condition_determines_the_data():
    condition = torch.randn(7, 3, dtype=torch.float64)
    velocity = guide(lambda x, t, c: (c.sin() - x) / (1 - t)[:, None], condition)
    torch.testing.assert_close(integrate(velocity, X0, time_grid(1, dtype=torch.float64), "euler"), condition.sin())


def test_unknown_solver_error_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown solver 'rk5'.*'midpoint'.*'dopri5'"):
        integrate(FLOW.velocity, X0, grid(2), "rk5")


def conditional(x, t, condition):
    return condition[:, :1] * torch.sin(3 * t)[:, None] + x * math.e ** (-condition[:, 1:])


def test_guidance_at_one_is_the_conditional_and_at_zero_the_unconditional_field():
    condition, t = torch.randn(7, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    times = t.expand(7)
    torch.testing.assert_close(
        guide(conditional, condition, 1.0)(X0, t), conditional(X0, times, condition), rtol=0, atol=0
    )
    torch.testing.assert_close(
        guide(conditional, condition, 0.0)(X0, t), conditional(X0, times, 0 * condition), rtol=0, atol=0
    )


def test_guidance_extrapolates_in_one_call():
    condition, t, calls = torch.randn(7, 2, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64), []

    def counted(x, t, c):
        calls.append(len(x))
        return conditional(x, t, c)

    guided = guide(counted, condition, 2.5)(X0, t)
    with_condition, without = conditional(X0, t.expand(7), condition), conditional(X0, t.expand(7), 0 * condition)
    torch.testing.assert_close(guided, without + 2.5 * (with_condition - without))
    assert calls == [14]
