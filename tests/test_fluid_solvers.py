"""Solvers of the fluids: order of convergence, exact solutions and budgets."""

import numpy as np
import pytest
from scipy.linalg import expm

from flowmatch.datasets.fluids import kuramoto_sivashinsky, navier_stokes
from flowmatch.datasets.fluids._boussinesq import BoussinesqFlow
from flowmatch.datasets.fluids._compressible_flow import CompressibleFlow
from flowmatch.datasets.fluids._spectral import ETDRK4, smooth_noise, to_coefficients, to_fields, wave_indices
from flowmatch.datasets.fluids.rayleigh_taylor import layered

RNG = np.random.default_rng


def smooth(*shape, n_waves=3, seed=0):
    """Fields (1, *shape)."""
    return smooth_noise(RNG(seed), (1,), shape, n_waves)


def derivative(fields, axis, length=2 * np.pi):
    """By one-dimensional Fourier series."""
    n = fields.shape[axis]
    k = 2j * np.pi / length * np.fft.fftfreq(n, 1 / n)
    k[n // 2] = 0
    return np.fft.ifft(k.reshape(-1, *[1] * (-1 - axis)) * np.fft.fft(fields, axis=axis), axis=axis).real


def buoyant(shape, step=0.01, viscosity=0.0, diffusivity=0.0, width=1.0):
    return BoussinesqFlow(shape, width, viscosity, diffusivity, step)


def stirred(flow, seed=0):
    """A flow without divergence that fills all resolved waves, buoyancy included."""
    noise = RNG(seed).standard_normal((1, len(flow.shape) + 1, *flow.shape))
    return flow.project(flow.to_coefficients(noise))


PROBLEMS = {
    "ks 1-D": (lambda h: kuramoto_sivashinsky.solver((32,), 44.0, h), to_coefficients(3 * smooth(32), 1), 0.2),
    "ks 2-D": (lambda h: kuramoto_sivashinsky.solver((16, 16), 30.0, h), to_coefficients(3 * smooth(16, 16), 2), 0.2),
    "ns": (
        lambda h: navier_stokes.solver(16, 1e-2, h, drag=0.1, forcing=1.0, forcing_waves=2),
        to_coefficients(3 * smooth(16, 16), 2),
        0.1,
    ),
    "boussinesq": (
        lambda h: buoyant((16, 16), h, 1e-2, 2e-2).solver,
        layered(buoyant((16, 16)), 0.1 * smooth(16), 0.2),
        0.2,
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_exponential_time_step_is_of_order_four(name):
    make, start, step = PROBLEMS[name]
    ends = [make(step / n)(start, 4 * n) for n in (1, 2, 16)]
    errors = [np.abs(end - ends[-1]).max() for end in ends[:2]]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.15)


def test_the_exponential_time_step_is_exact_for_linear_and_for_constant_rates():
    linear = np.array([-1e4, -1.0, -1e-9, 0.0, 1.0])
    end = ETDRK4(linear, lambda v: np.full(5, 2.0 + 0j), 0.3)(np.ones(5, complex), 2)
    exact = [1 + 2 * 0.6 if abs(r) < 1e-6 else np.exp(0.6 * r) + 2 * np.expm1(0.6 * r) / r for r in linear]
    np.testing.assert_allclose(end, exact, rtol=1e-8)


def test_the_rate_of_a_single_wave_is_that_of_the_kuramoto_sivashinsky_equation():
    x, k = 2 * np.pi * np.arange(32) / 32, 2 * np.pi / 10
    rate = kuramoto_sivashinsky.solver((32,), 10.0, 0.1).rate(to_coefficients(0.7 * np.sin(x), 1))
    expected = 0.7 * (k**2 - k**4) * np.sin(x) - 0.49 * k / 2 * np.sin(2 * x)
    np.testing.assert_allclose(to_fields(rate, (32,)), expected, atol=1e-12)


def test_energy_of_kuramoto_sivashinsky_changes_by_its_budget():
    v = to_coefficients(2 * smooth(64, n_waves=20), 1)
    u, rate = (to_fields(c, (64,)) for c in (v, kuramoto_sivashinsky.solver((64,), 64.0, 0.1).rate(v)))
    slope = derivative(u, -1, 64.0)
    assert (u * rate).mean() == pytest.approx((slope**2).mean() - (derivative(slope, -1, 64.0) ** 2).mean(), rel=1e-12)
    assert abs(rate.mean()) < 1e-15


@pytest.mark.parametrize(("y", "x"), [(0, 1), (1, 0), (1, 1)])
def test_kuramoto_sivashinsky_in_two_dimensions_is_the_other_one_along_any_line(y, x):
    n, length = 32, 30.0
    index = (y * np.arange(n)[:, None] + x * np.arange(n)) % n
    height, spread = smooth(n, n_waves=6)[0], length / np.hypot(x, y)
    one = kuramoto_sivashinsky.solver((n,), spread, 0.1).rate(to_coefficients(derivative(height, -1, spread), 1))
    two = kuramoto_sivashinsky.solver((n, n), length, 0.1).rate(to_coefficients(height[index], 2))
    along = derivative(to_fields(two, (n, n)), -1 if x else -2, length) * np.hypot(x, y)
    np.testing.assert_allclose(along, to_fields(one, (n,))[index], atol=1e-10)
    assert abs(two[0, 0]) < 1e-15


def test_the_taylor_green_vortex_decays_as_the_exact_solution():
    x = 2 * np.pi * np.arange(16) / 16
    vortex = 2 * np.cos(x)[:, None] * np.cos(x)
    end = navier_stokes.solver(16, 0.05, 0.02, drag=0.1)(to_coefficients(vortex, 2), 100)
    np.testing.assert_allclose(to_fields(end, (16, 16)), vortex * np.exp(-2 * (2 * 0.05 + 0.1)), atol=1e-13)


def test_energy_and_enstrophy_of_navier_stokes_change_by_their_budgets():
    nu, mu, n = 0.02, 0.3, 32
    w = to_coefficients(3 * smooth(n, n, n_waves=10), 2)
    rate = navier_stokes.solver(n, nu, 0.1, drag=mu, forcing=1.5, forcing_waves=2).rate(w)
    vorticity, growth = to_fields(w, (n, n)), to_fields(rate, (n, n))
    (u_x, u_y), (a_x, a_y) = (to_fields(navier_stokes.velocity(c[0], n), (n, n)) for c in (w, rate))
    np.testing.assert_allclose(derivative(u_y, -1) - derivative(u_x, -2), vorticity[0], atol=1e-12)
    np.testing.assert_allclose(derivative(u_x, -1), -derivative(u_y, -2), atol=1e-12)
    y = 2 * np.pi * np.arange(n)[:, None] / n
    work, spin = 1.5 * (u_x * np.sin(2 * y)).mean(), -3 * (vorticity * np.cos(2 * y)).mean()
    squares = (u_x**2 + u_y**2).mean(), (vorticity**2).mean()
    gradient = (derivative(vorticity, -1) ** 2 + derivative(vorticity, -2) ** 2).mean()
    assert (u_x * a_x + u_y * a_y).mean() == pytest.approx(work - nu * squares[1] - mu * squares[0], rel=1e-11)
    assert (vorticity * growth).mean() == pytest.approx(spin - nu * gradient - mu * squares[1], rel=1e-11)


def test_vorticity_is_carried_with_the_flow():
    w = to_coefficients(smooth(32, 32, n_waves=5), 2)  # so smooth that the product is resolved
    u_x, u_y = to_fields(navier_stokes.velocity(w[0], 32), (32, 32))
    vorticity = to_fields(w, (32, 32))[0]
    expected = -u_x * derivative(vorticity, -1) - u_y * derivative(vorticity, -2)
    np.testing.assert_allclose(to_fields(navier_stokes.solver(32, 0, 0.1).rate(w), (32, 32))[0], expected, atol=1e-12)


def gas(n, seed=0, n_waves=2, amplitude=0.1):
    """Primitive states (4, 1, n, n), the same fields for every n."""
    noise = smooth_noise(RNG(seed), (4, 1), (12, 12), n_waves)
    waves = np.fft.fftshift(np.fft.fft2(noise), axes=(-2, -1))
    padded = np.fft.ifftshift(np.pad(waves, [(0, 0)] * 2 + [((n - 12) // 2,) * 2] * 2), axes=(-2, -1))
    rho, u_x, u_y, p = amplitude * np.fft.ifft2(padded).real * (n / 12) ** 2
    return np.stack([np.exp(rho), 0.1 + 3 * u_x, 3 * u_y - 0.2, np.exp(p) / 1.4])


def gas_rate(primitive, viscosity, gamma=1.4, prandtl=0.71):
    """The equations as in the textbook, with Fourier derivatives on a fine grid."""
    rho, u, p = primitive[0], primitive[1:3], primitive[3]
    energy, (d_x, d_y) = p / (gamma - 1) + rho * (u**2).sum(0) / 2, (-1, -2)
    d = lambda f, axis: derivative(f, axis, 1.0)  # noqa: E731
    grad = [[d(u[i], axis) for axis in (d_x, d_y)] for i in range(2)]
    div = grad[0][0] + grad[1][1]
    stress = [[viscosity * (grad[i][j] + grad[j][i] - 2 / 3 * div * (i == j)) for j in range(2)] for i in range(2)]
    heat = [viscosity * gamma / (gamma - 1) / prandtl * d(p / rho, axis) for axis in (d_x, d_y)]
    out = [0, 0, 0, 0]
    for j, axis in enumerate((d_x, d_y)):
        out[0] = out[0] - d(rho * u[j], axis)
        for i in range(2):
            out[1 + i] = out[1 + i] + d(stress[i][j] - rho * u[i] * u[j] - p * (i == j), axis)
        out[3] = out[3] + d(stress[0][j] * u[0] + stress[1][j] * u[1] + heat[j] - (energy + p) * u[j], axis)
    return np.stack(out)


def test_the_gas_follows_its_equations_to_order_six_in_space():
    exact = gas_rate(gas(96), 0.02)
    errors = []
    for n in (24, 48):
        flow = CompressibleFlow(n, 0.02)
        rate = flow.rate(flow.conserved(gas(n)))
        errors.append(np.abs(rate - exact[..., :: 96 // n, :: 96 // n]).max(axis=(1, 2, 3)))
    np.testing.assert_allclose(np.log2(errors[0] / errors[1]), 6, atol=0.6)


def test_the_gas_is_carried_to_order_four_in_time():
    flow = CompressibleFlow(16, 1e-3)
    ends = []
    for n in (1, 2, 16):
        state = flow.conserved(gas(16))
        for _ in range(4 * n):
            state = flow.step(state, 0.03 / n)
        ends.append(state)
    errors = [np.abs(end - ends[-1]).max() for end in ends[:2]]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.15)


def test_mass_momentum_and_energy_of_the_gas_are_conserved_to_rounding():
    flow = CompressibleFlow(24, 1e-3)
    start = flow.conserved(gas(24, n_waves=3, amplitude=0.1))
    end = flow.advance(start, 0.5, 1.5)
    assert np.abs(end - start).mean() > 0.05
    np.testing.assert_allclose((end - start).mean(axis=(-2, -1)), 0, atol=1e-14)
    motion = (flow.primitive(end)[1:3] ** 2 * end[0]).sum(), (flow.primitive(start)[1:3] ** 2 * start[0]).sum()
    assert motion[0] < 0.95 * motion[1]  # so that friction has turned into heat


def test_weak_waves_in_the_gas_have_the_speed_and_damping_of_the_linear_equations():
    """Sound, vorticity and heat at once, oblique, in a wind."""
    n, nu, gamma, prandtl, time = 32, 5e-3, 1.4, 0.71, 0.7
    k, wind, p0 = 2 * np.pi * np.array([1.0, 2.0]), np.array([0.3, -0.2]), 1 / 1.4
    conduction, square = nu * gamma / prandtl, k @ k
    matrix = np.zeros((4, 4), complex)
    matrix[0, 1:3] = matrix[0, 1:3] - 1j * k
    matrix[1:3, 3] = -1j * k
    matrix[1:3, 1:3] = -nu * (square * np.eye(2) + np.outer(k, k) / 3)
    matrix[3] = [conduction * square * p0, *(-1j * k), -conduction * square]  # gamma p0 = 1
    matrix -= 1j * (k @ wind) * np.eye(4)
    start, grid = np.array([1.0, 0.5j, -0.7, 0.4 - 0.2j]), np.arange(n) / n
    phase = np.exp(1j * (k[1] * grid[:, None] + k[0] * grid))
    flow, rest = CompressibleFlow(n, nu, gamma, prandtl), np.array([1, *wind, p0])[:, None, None, None]
    wave = lambda c: np.real(c[:, None, None, None] * phase)  # noqa: E731
    end = flow.advance(flow.conserved(rest + 1e-7 * wave(start)), time, 0.7)
    np.testing.assert_allclose((flow.primitive(end) - rest) * 1e7, wave(expm(time * matrix) @ start), atol=2e-4)


def test_an_unresolved_gas_without_viscosity_keeps_its_entropy():
    """Differences of the plain flux blow up within three time units."""
    flow = CompressibleFlow(16, 0.0)
    start = flow.conserved(gas(16, n_waves=3, amplitude=0.05))
    primitive = [flow.primitive(state) for state in (start, flow.advance(start, 4.0, 1.5))]
    spread = [(p[3] / p[0] ** 1.4).std() for p in primitive]
    assert 0.9 < spread[1] / spread[0] < 1.15


def test_motion_of_the_gas_turns_into_heat_by_compression_alone():
    """Convection of kinetic energy is kept point by point, to rounding; rough fields, one temperature."""
    density, u_x, u_y = 1 + 0.3 * RNG(0).uniform(-1, 1, (3, 1, 16, 16))
    flow, heat = CompressibleFlow(16, 0.0), 2.0
    rate = flow.rate(flow.conserved(np.stack([density, u_x, u_y, 0.4 * heat * density])))
    ahead = {1: 3 / 4, 2: -3 / 20, 3: 1 / 60}
    divergence = 16 * sum(
        weight * (np.roll(u, -d, axis) - np.roll(u, d, axis))
        for d, weight in ahead.items()
        for u, axis in ((u_x, -1), (u_y, -2))
    )
    heating = rate[3] - u_x * rate[1] - u_y * rate[2] + (u_x**2 + u_y**2) / 2 * rate[0]
    np.testing.assert_allclose(heating, heat * rate[0] - 0.4 * heat * density * divergence, atol=1e-12)


def test_a_gas_of_negative_pressure_is_not_handed_on():
    flow = CompressibleFlow(16, 0.0)
    state = flow.conserved(gas(16, n_waves=3, amplitude=0.05))
    too_long = flow.advance(state, flow._longest_step(state, 6.0), 6.0)
    state[3, 0, 2, 2] = -1
    with np.errstate(invalid="ignore"):
        assert np.isnan(too_long).all()
        assert np.isnan(flow.advance(state, 0.1, 1.0)).all()


def test_the_interface_lies_at_its_height():
    buoyancy = buoyant((32, 4)).to_fields(layered(buoyant((32, 4)), np.full((1, 4), 0.1), 0.1))[0, 1]
    np.testing.assert_allclose(buoyancy.mean(), 0.2, atol=5e-3)  # light fluid, of buoyancy 1, to height 0.6


@pytest.mark.parametrize("thickness", [0.06, 0.12])
def test_a_small_wave_of_the_interface_grows_at_the_rate_of_linear_theory(thickness):
    """The rate for a tanh profile without walls; those, a wavelength off, change it by exp(-4 pi) at most."""
    k = 4 * np.pi
    flow = buoyant((64, 8), 0.1, width=0.5)
    v = layered(flow, 1e-11 * np.cos(2 * np.pi * np.arange(8) / 8)[None], thickness)
    sizes = []
    for n_steps in (50, 10):
        v = flow.solver(v, n_steps)
        sizes.append(np.abs(flow.to_fields(v)[:, -1]).max())
    assert np.log(sizes[1] / sizes[0]) == pytest.approx(np.sqrt(k / (1 + k * thickness)), rel=5e-4)


def test_a_cellular_vortex_between_walls_decays_as_the_exact_solution():
    flow, nu, kappa = buoyant((16, 16), 0.05, 0.01, 0.02), 0.01, 0.02
    z, x = ((np.arange(16) + 0.5) / 16)[:, None], np.arange(16) / 16
    across = np.cos(2 * np.pi * x) * np.sin(np.pi * z)
    along = -np.sin(2 * np.pi * x) * np.cos(np.pi * z) / 2
    layers = np.broadcast_to(np.cos(2 * np.pi * z), (16, 16))
    end = flow.to_fields(flow.solver(flow.to_coefficients(np.stack([along, 0 * layers, across])[None]), 20))
    np.testing.assert_allclose(end[0], np.exp(-5 * np.pi**2 * nu) * np.stack([along, 0 * layers, across]), atol=1e-13)
    end = flow.to_fields(flow.solver(flow.to_coefficients(np.stack([0 * layers, layers, 0 * layers])[None]), 20))
    np.testing.assert_allclose(end[0, 1], np.exp(-4 * np.pi**2 * kappa) * layers, atol=1e-13)
    np.testing.assert_allclose(end[0, ::2], 0, atol=1e-13)  # the pressure carries layers


@pytest.mark.parametrize("shape", [(16, 24), (12, 12, 12)])
def test_energy_and_buoyancy_between_walls_change_by_their_budgets(shape):
    nu, kappa = 0.01, 0.03
    flow, still = buoyant(shape, viscosity=nu, diffusivity=kappa), buoyant(shape)
    v = stirred(flow)
    fields, rate, conservative = (flow.to_fields(c) for c in (v, flow.solver.rate(v), still.solver.rate(v)))
    friction = rate - conservative
    velocity = [i for i in range(fields.shape[1]) if i != fields.shape[1] - 2]
    buoyancy, lift = fields[:, -2], (fields[:, -2] * fields[:, -1]).mean()
    grid = shape[0] ** -1.0
    assert (fields[:, velocity] * conservative[:, velocity]).sum(1).mean() == pytest.approx(lift, rel=1e-11)
    assert abs((buoyancy * conservative[:, -2]).mean()) < 1e-12 * (buoyancy**2).mean() / grid
    assert abs(rate[:, -2].mean()) < 1e-13 * np.abs(rate[:, -2]).mean()
    slopes = [derivative(buoyancy, axis, 1.0) for axis in range(1 - len(shape), 0)]
    mirrored = np.concatenate([buoyancy, buoyancy[:, ::-1]], axis=1)
    slopes.append(derivative(mirrored, -len(shape), 2.0)[:, : shape[0]])
    decay = kappa * sum((slope**2).mean() for slope in slopes)
    assert -(buoyancy * friction[:, -2]).mean() == pytest.approx(decay, rel=1e-11)


def test_three_dimensions_contain_two_along_either_side():
    plane, solid = (buoyant(shape, 0.05, 2e-3, 3e-3) for shape in ((12, 12), (12, 12, 12)))
    fields = plane.to_fields(stirred(plane))
    end = plane.to_fields(plane.solver(plane.to_coefficients(fields), 4))
    x, b, z = np.moveaxis(np.repeat(fields[:, :, :, None], 12, axis=3), 1, 0)
    along_x = solid.to_fields(solid.solver(solid.to_coefficients(np.stack([x, 0 * x, b, z], axis=1)), 4))
    turned = np.stack([0 * x, x, b, z], axis=1).swapaxes(-1, -2)
    along_y = solid.to_fields(solid.solver(solid.to_coefficients(turned), 4))
    np.testing.assert_allclose(along_x[..., 5, :][:, [0, 2, 3]], end, atol=1e-12)
    np.testing.assert_allclose(along_y[..., 5][:, [1, 2, 3]], end, atol=1e-12)


def test_a_flow_between_walls_is_carried_along_by_a_wind():
    """Galilean invariance, which fixes the sign of advection; budgets do not."""
    flow = buoyant((16, 16))
    calm = stirred(flow)
    windy = calm.copy()
    windy[:, 0, 0, 0] += flow.to_coefficients(np.full((1, 3, 16, 16), 0.7))[:, 0, 0, 0]
    carried, fields = (flow.to_fields(v) for v in (flow.solver.rate(windy) - flow.solver.rate(calm), calm))
    np.testing.assert_allclose(carried, -0.7 * derivative(fields, -1, 1.0), atol=1e-11)


def test_the_flow_between_walls_has_no_divergence():
    flow = buoyant((16, 16, 16), 0.05, 2e-3, 2e-3)
    fields = flow.to_fields(flow.solver(stirred(flow), 3))
    mirrored = np.concatenate([fields[:, -1], -fields[:, -1, ::-1]], axis=1)
    upward = derivative(mirrored, -3, 2.0)[:, :16]
    divergence = derivative(fields[:, 0], -1, 1.0) + derivative(fields[:, 1], -2, 1.0) + upward
    assert np.abs(upward).max() > 1
    np.testing.assert_allclose(divergence, 0, atol=1e-11)


def test_smooth_noise_has_the_waves_and_the_size_it_says():
    fields = smooth_noise(RNG(0), (5,), (16, 12), 3)
    power = np.abs(to_coefficients(fields, 2)) ** 2
    y, x = wave_indices((16, 12))
    square = y**2 + x**2
    assert (power[:, (square > 9) | (square == 0)] < 1e-20).all()
    assert (power[:, (square <= 9) & (square > 0)] > 1e-6).all()
    np.testing.assert_allclose(fields.std(axis=(1, 2)), 1)
