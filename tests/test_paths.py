import pytest
import torch

from flowmatch.flow import PATHS, LinearPath

T = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


@pytest.fixture(params=PATHS)
def path(request):
    return PATHS[request.param]()


def test_path_starts_at_noise_and_ends_at_data(path):
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(path.data_scale(ends), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(
        path.noise_scale(ends), torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-12, rtol=0
    )


def test_rates_are_the_derivatives_of_the_scales(path):
    t = T.clone().requires_grad_(True)
    for scale, rate in ((path.data_scale, path.data_rate), (path.noise_scale, path.noise_rate)):
        (derivative,) = torch.autograd.grad(scale(t).sum(), t)
        torch.testing.assert_close(rate(T), derivative, rtol=1e-12, atol=1e-12)


def test_conditional_velocity_is_the_derivative_of_the_interpolation(path):
    x0, x1 = torch.randn(19, 3, dtype=torch.float64), torch.randn(19, 3, dtype=torch.float64)
    h = 1e-6
    difference = (path.interpolate(x0, x1, T + h) - path.interpolate(x0, x1, T - h)) / (2 * h)
    torch.testing.assert_close(path.velocity(x0, x1, T), difference, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 3, 3)])
def test_velocity_data_and_noise_convert_into_each_other(path, shape):
    x0, x1 = torch.randn(19, *shape, dtype=torch.float64), torch.randn(19, *shape, dtype=torch.float64)
    x, u = path.interpolate(x0, x1, T), path.velocity(x0, x1, T)
    torch.testing.assert_close(path.data_from_velocity(u, x, T), x1, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.noise_from_velocity(u, x, T), x0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.velocity_from_data(x1, x, T), u, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(path.velocity_from_noise(x0, x, T), u, rtol=1e-9, atol=1e-9)


def test_velocity_scale_is_positive_and_one_on_the_linear_path(path):
    assert (path.velocity_scale(T) > 0).all()
    torch.testing.assert_close(LinearPath().velocity_scale(T), torch.ones_like(T))


def test_linear_velocity_given_the_point_is_the_distance_left_over_the_time_left():
    x0, x1 = torch.randn(19, 2, dtype=torch.float64), torch.randn(19, 2, dtype=torch.float64)
    x = LinearPath().interpolate(x0, x1, T)
    torch.testing.assert_close(LinearPath().velocity(x0, x1, T), (x1 - x) / (1 - T)[:, None])


def test_linear_conditional_covariance_is_the_square_of_one_minus_t_not_one_minus_t_squared():
    t = torch.full((200_000,), 0.6, dtype=torch.float64)
    x0 = torch.randn(200_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = LinearPath().interpolate(x0, torch.ones_like(x0), t)
    assert x.var().item() == pytest.approx(0.4**2, rel=0.02)


def test_variance_preserving_paths_keep_unit_variance():
    for name in ("vp", "cosine"):
        path = PATHS[name]()
        torch.testing.assert_close(path.data_scale(T) ** 2 + path.noise_scale(T) ** 2, torch.ones_like(T))


def test_velocity_of_the_vp_path_is_finite_from_its_first_time_on():
    path = PATHS["vp"]()
    assert path.first_time > 0
    assert torch.isfinite(path.data_rate(torch.tensor(path.first_time)))
    assert not torch.isfinite(path.data_rate(torch.tensor(0.0)))
