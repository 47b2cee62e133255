"""Anomaly scores of velocities that are known exactly; nothing is trained."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from closed_forms import FiniteDataFlow, GaussianFlow
from grid_networks import normal, shaken
from scipy.stats import norm

from flowmatch.anomaly import (
    SCORES,
    Combined,
    Denoising,
    FlowField,
    Latent,
    Likelihood,
    Neighbors,
    OneStep,
    Rebuilding,
    Reconstruction,
)
from flowmatch.flow import PATHS, CosinePath, LinearPath, MatchedSource, NormalSource, SparseSource, expand_time
from flowmatch.flow import VariancePreservingPath as VPPath
from flowmatch.networks import MLP

EVERY_PATH = pytest.mark.parametrize("path", [kind() for kind in PATHS.values()], ids=PATHS)
INTEGRATED = pytest.mark.parametrize("path", [LinearPath(), VPPath(0.05), CosinePath()], ids=["linear", "vp", "cosine"])
SHAPES = pytest.mark.parametrize("shape", [(4,), (2, 6)], ids=["table", "signal"])
MEANS = torch.tensor([0.7, -1.0, 0.0, 3.0], dtype=torch.float64)
STDS = torch.tensor([0.3, 1.0, 2.0, 0.5], dtype=torch.float64)


def field_of(velocity, shape=(4,), path=None, source=None, scale=None, n_steps=24, solver="rk4"):
    """A field whose velocity ``(x, t)`` takes times that broadcast against x, or ``(x, t, condition)`` networks."""
    network = velocity
    if not isinstance(velocity, torch.nn.Module):

        def network(x, t, condition=None):
            given = () if condition is None else (condition,)
            return velocity(x, expand_time(t, x), *given)

    scale = torch.ones(shape, dtype=torch.float64) if scale is None else scale
    return FlowField(network, path or LinearPath(), source or NormalSource(), scale, n_steps, solver)


def gaussian(path=None, **settings):
    """Independent columns N(MEANS, STDS^2), exactly."""
    flow = GaussianFlow(MEANS, STDS, path or LinearPath())
    return flow, field_of(flow.velocity, path=path, **settings)


def scored(score, field, codes, condition=None, state=None):
    with torch.no_grad():
        return score.contributions(field, state or {}, codes, condition)


def zero(x, t):
    return torch.zeros_like(x)


def close(actual, expected, rtol=1e-9, atol=1e-10):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=rtol, atol=atol)


def close_as_solved(actual, expected):
    """Equal up to the error of the solver in a few dozen steps."""
    close(actual, expected, rtol=1e-4, atol=1e-4)


# -- the field ----------------------------------------------------------------------------------------------------


def test_part_of_the_way_takes_its_share_of_the_steps_and_starts_at_the_paths_first_time():
    field = field_of(zero, n_steps=10)
    close(field.times(), [k / 10 for k in range(11)])
    close(field.times(0.8), [0.8, 0.9, 1.0])
    close(field.times(0.99), [0.99, 1.0])
    assert field_of(zero, path=VPPath(0.01)).times()[0] == 0.01
    assert field_of(zero, path=VPPath(0.01)).times(0.5)[0] == 0.5


def test_noise_is_the_same_at_every_call_and_has_the_sources_scale():
    scale = torch.tensor([0.1, 100.0], dtype=torch.float64)
    field = field_of(zero, source=MatchedSource(), scale=scale)
    noise = field.draw_noise(2000, seed=0)
    assert torch.equal(noise, field.draw_noise(2000, seed=0))
    assert not torch.equal(noise, field.draw_noise(2000, seed=1))
    torch.testing.assert_close(noise.std(0), scale, rtol=0.05, atol=0)


@pytest.mark.parametrize("size", [0, 3])
def test_the_network_sees_a_few_rows_at_a_time_and_each_its_own_condition(size):
    network, seen = shaken(MLP(width=8), (4,), size), []
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    rows, condition = normal(10, 4), normal(10, 3, seed=3) if size else None
    found = [scored(Latent(), replace(field_of(network, n_steps=3), rows_at_once=n), rows, condition) for n in (100, 4)]
    close(*found)
    assert set(seen) == {10, 4, 2}


@INTEGRATED
def test_to_data_undoes_to_noise(path):
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    _, field = gaussian(path, scale=scale)
    z = MEANS + STDS * normal(5, 4)
    close_as_solved(field.to_data(field.to_noise(z, None) * scale, None), z)


# -- one step -----------------------------------------------------------------------------------------------------


@EVERY_PATH
def test_one_step_is_zero_for_gaussian_data_learned_exactly(path):
    _, field = gaussian(path)
    close(scored(OneStep(), field, normal(5, 4, seed=0) * 10), torch.zeros(5, 4))


@EVERY_PATH
@SHAPES
@pytest.mark.parametrize("time", [0.3, 1.0])
def test_one_step_of_a_proportional_velocity_is_proportional_to_the_squared_norm(path, shape, time):
    t = torch.tensor(time, dtype=torch.float64)
    a, da, b, db = path.data_scale(t), path.data_rate(t), path.noise_scale(t), path.noise_rate(t)
    z = normal(3, *shape)
    field = field_of(lambda x, t: 0.4 * x, shape, path)
    expected = ((da - 0.4 * a) / (da * b - a * db)).square() * z.square()
    close(scored(OneStep((time,)), field, z), expected)


def test_one_step_on_the_linear_path_is_the_squared_difference_of_velocity_and_row():
    z = normal(3, 4)
    close(scored(OneStep(), field_of(lambda x, t: 0.25 * x), z), 0.75**2 * z.square())


@EVERY_PATH
def test_one_step_near_the_end_is_the_squared_distance_to_a_finite_data_set_in_units_of_the_noise(path):
    points = torch.tensor([[0.0, 0.0], [2.0, -1.0], [-1.0, 3.0]], dtype=torch.float64)
    known = FiniteDataFlow(points, path)
    field = FlowField(
        lambda x, t, c=None: known.velocity(x, t), path, NormalSource(), torch.ones(2, dtype=torch.float64), 5, "rk4"
    )
    score, away = OneStep((0.95,)), torch.tensor([0.1, -0.2], dtype=torch.float64)
    close(scored(score, field, points), torch.zeros(3, 2))
    b = path.noise_scale(field.time(0.95))
    close(scored(score, field, points + away), (away / b).square().expand(3, 2))


@EVERY_PATH
def test_one_step_at_several_times_is_their_mean(path):
    field, z = field_of(lambda x, t: torch.sin(x) + t, path=path), normal(5, 4)
    each = [scored(OneStep((time,)), field, z) for time in (0.5, 1.0)]
    assert not torch.allclose(*each)
    close(scored(OneStep((0.5, 1.0)), field, z), (each[0] + each[1]) / 2)


# -- latent and likelihood ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [LinearPath(), CosinePath()], ids=["linear", "cosine"])
def test_latent_is_the_squared_standard_score_of_gaussian_data(path):
    _, field = gaussian(path)
    z = normal(5, 4, seed=0) * 4
    close_as_solved(scored(Latent(), field, z), ((z - MEANS) / STDS).square())
    assert scored(Latent(), field, MEANS[None]).max() < 1e-10


def test_latent_stops_at_the_paths_first_time():
    flow, field = gaussian(VPPath(0.05))
    z = normal(5, 4, seed=0)
    one, first = field.time(1.0), field.time(0.05)
    close_as_solved(scored(Latent(), field, z), flow.carry(z, one, first).square())


def matched(path, **settings):
    """The Gaussian data, from noise of other scales."""
    scale = torch.tensor([0.5, 1.0, 4.0, 0.1], dtype=torch.float64)
    flow = GaussianFlow(MEANS / scale, STDS / scale, path)
    return field_of(
        lambda x, t: scale * flow.velocity(x / scale, t), path=path, source=MatchedSource(), scale=scale, **settings
    )


@pytest.mark.parametrize(
    ("path", "n_probes", "source"),
    [(LinearPath(), None, "normal"), (LinearPath(), 1, "matched"), (CosinePath(), None, "matched")],
    ids=str,
)
def test_likelihood_contributions_of_independent_columns_are_their_densities(path, n_probes, source):
    field = gaussian(path)[1] if source == "normal" else matched(path)
    z = MEANS + STDS * normal(5, 4, seed=0)
    expected = -norm(MEANS.numpy(), STDS.numpy()).logpdf(z.numpy())
    close_as_solved(scored(Likelihood(n_probes), field, z), expected)
    close_as_solved(scored(Latent(), field, z), ((z - MEANS) / STDS).square())


def test_likelihood_of_many_numbers_is_estimated_and_still_sums_to_the_density():
    flow, shape = GaussianFlow(0.7, 0.3), (2, 40)
    z = flow.mean + flow.std * normal(3, *shape)
    found = scored(Likelihood(), field_of(flow.velocity, shape), z)
    close_as_solved(found.flatten(1).sum(1), -flow.log_density(z))
    assert found.shape == z.shape


def test_likelihood_says_that_sparse_noise_has_no_density():
    with pytest.raises(ValueError, match="source='sparse' has atoms"):
        scored(Likelihood(), gaussian(source=SparseSource())[1], normal(2, 4))


def test_likelihood_holds_as_many_copies_as_it_has_directions():
    assert Likelihood().copies(10) == 10
    assert Likelihood(n_probes=7).copies(1000) == 7
    assert Likelihood().copies(10**6) <= 64
    assert {kind().copies(10) for name, kind in SCORES.items() if name != "likelihood"} == {1}


# -- noised copies ------------------------------------------------------------------------------------------------


@EVERY_PATH
@SHAPES
def test_denoising_is_the_velocitys_error_on_the_noise_bank(path, shape):
    field, z, times = field_of(lambda x, t: 0.4 * x + t, shape, path), normal(3, *shape), (0.3, 0.9)
    expected = torch.zeros_like(z)
    for e, time in itertools.product(field.draw_noise(5, seed=0), times):
        t = field.time(time)
        x = path.data_scale(t) * z + path.noise_scale(t) * e
        expected += (0.4 * x + time - path.data_rate(t) * z - path.noise_rate(t) * e).square() / 10
    close(scored(Denoising(times, n_noises=5), field, z), expected)


def test_denoising_by_a_zero_velocity_is_the_mean_squared_difference_of_row_and_noise():
    field, z = field_of(zero), normal(3, 4)
    noise = field.draw_noise(8, seed=0)
    close(scored(Denoising(), field, z), (z[:, None] - noise).square().mean(1))


@INTEGRATED
@pytest.mark.parametrize("time", [0.0, 0.5, 0.8])
def test_rebuilding_is_the_squared_difference_of_the_row_and_the_mean_of_what_comes_back(path, time):
    flow, field = gaussian(path)
    z, t = normal(5, 4, seed=0) * 2, field.time(max(time, path.first_time))
    noise = field.draw_noise(3, seed=0)
    noised = path.data_scale(t) * z[:, None] + path.noise_scale(t) * noise
    back = flow.carry(noised, t, field.time(1.0)).mean(1)
    close_as_solved(scored(Rebuilding(time, n_noises=3), field, z), (back - z).square())


def test_rebuilding_without_noise_in_the_row_gives_the_row_back():
    _, field = gaussian()
    assert scored(Rebuilding(1 - 1e-7), field, MEANS + STDS * normal(5, 4)).max() < 1e-12


def test_rebuilding_from_the_start_forgets_the_row():
    flow, field = gaussian()
    z = normal(5, 4)
    samples = flow.mean + flow.std * field.draw_noise(4, seed=0)
    close_as_solved(scored(Rebuilding(0.0), field, z), (samples.mean(0) - z).square())


def towards(x, t, condition):
    """The flow that carries all noise to the row that the condition is, along straight lines."""
    return (condition.view_as(x) - x) / (1 - t)


@SHAPES
def test_reconstruction_is_zero_where_the_flow_finds_the_row_and_else_the_squared_difference(shape):
    field, z = field_of(towards, shape, solver="midpoint", n_steps=7), normal(5, *shape)
    assert scored(Reconstruction(), field, z, z.flatten(1)).max() < 1e-20
    close(scored(Reconstruction(), field, z, z.flip(0).flatten(1)), (z - z.flip(0)).square())


def test_reconstruction_compares_with_the_mean_of_the_samples():
    field, z = field_of(zero), normal(5, 4)
    expected = (field.draw_noise(3, seed=0).mean(0) - z).square()
    close(scored(Reconstruction(n_samples=3), field, z), expected)


# -- neighbours ---------------------------------------------------------------------------------------------------


def nearest_by_brute_force(row, reference, k):
    """Numbers of the k nearest reference rows; one exact copy is passed over."""
    distances = np.square(reference - row).sum(1)
    order = np.argsort(distances, kind="stable")
    return order[1 : k + 1] if distances[order[0]] == 0 else order[:k]


def neighbors_by_brute_force(rows, reference, k, locality):
    """Contributions by the formula, a row at a time."""
    k = min(k, len(reference) - 1)
    near = [nearest_by_brute_force(row, reference, k) for row in reference]
    spread = np.array([np.square(row - reference[n]).sum(1).mean() for row, n in zip(reference, near, strict=True)])
    spread = spread + 1e-3 * spread.mean()
    found = []
    for row in rows:
        n = nearest_by_brute_force(row, reference, k)
        found.append(np.square(row - reference[n]).mean(0) / spread[n].mean() ** locality)
    return np.array(found)


@pytest.mark.parametrize("locality", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("n_columns", [1, 4, 30])
def test_neighbors_follow_their_formula_for_new_rows_and_for_those_of_training(locality, n_columns):
    known, new, field = normal(200, n_columns, seed=0), normal(50, n_columns, seed=1), field_of(zero, (n_columns,))
    score = Neighbors(n_neighbors=3, locality=locality)
    state = score.fit(field, known, None, {})
    for rows in (new, known):
        expected = neighbors_by_brute_force(rows.numpy(), known.numpy(), 3, locality)
        close(scored(score, field, rows, state=state), expected)


@pytest.mark.parametrize("space", ["data", "latent"])
def test_a_training_row_is_scored_by_the_others(space):
    known = normal(60, 4, seed=0)
    field = field_of(shaken(MLP(width=8), (4,)), n_steps=3, solver="midpoint")
    score = Neighbors(n_neighbors=2, locality=0.0, space=space)
    with torch.no_grad():
        state = score.fit(field, known, None, {})
        together = scored(score, field, known, state=state)
        for i in (0, 7, 59):
            without = score.fit(field, torch.cat([known[:i], known[i + 1 :]]), None, {})
            close(together[i : i + 1], scored(score, field, known[i : i + 1], state=without))


def test_of_several_copies_of_a_row_only_one_is_passed_over():
    known = torch.cat([normal(20, 4, seed=0), normal(20, 4, seed=0)[:5]])
    field, score = field_of(zero), Neighbors(n_neighbors=1, locality=0.0)
    found = scored(score, field, known, state=score.fit(field, known, None, {}))
    assert (found.sum(1) == 0).tolist() == [True] * 5 + [False] * 15 + [True] * 5


def test_neighbors_among_copies_only_are_finite():
    known, field = torch.ones(10, 4, dtype=torch.float64), field_of(zero)
    for locality in (0.0, 0.5, 1.0):
        score = Neighbors(locality=locality)
        state = score.fit(field, known, None, {})
        assert (scored(score, field, known, state=state) == 0).all()
        assert (scored(score, field, 2 * known[:1], state=state) > 0).all()


def test_at_most_max_reference_rows_are_searched():
    known, field = normal(100, 4, seed=0), field_of(zero)
    score = Neighbors(max_reference=30)
    state = score.fit(field, known, None, {})
    assert state["codes"].shape == (30, 4)
    assert len(state["codes"].unique(dim=0)) == 30
    assert len(torch.cat([known, state["codes"]]).unique(dim=0)) == 100
    new = normal(10, 4)
    expected = neighbors_by_brute_force(new.numpy(), state["codes"].numpy(), 5, 0.5)
    close(scored(score, field, new, state=state), expected)


@pytest.mark.parametrize("n_rows", [2, 3, 5])
def test_fewer_rows_than_neighbours_are_all_neighbours_but_one(n_rows):
    known, new, field = normal(n_rows, 4, seed=0), normal(10, 4), field_of(zero)
    score = Neighbors(n_neighbors=5)
    found = scored(score, field, new, state=score.fit(field, known, None, {}))
    close(found, neighbors_by_brute_force(new.numpy(), known.numpy(), 5, 0.5))


def test_newer_rows_come_first_and_the_oldest_leave():
    field, score = field_of(zero, (1,)), Neighbors(max_reference=25)
    ages = [torch.full((10, 1), float(age), dtype=torch.float64) + 0.01 * normal(10, 1) for age in range(3)]
    state = {}
    for rows in ages:
        state = score.fit(field, rows, None, state)
    assert state["codes"].round().flatten().tolist() == [2.0] * 10 + [1.0] * 10 + [0.0] * 5
    assert state["spread"].shape == (25,)
    expected = neighbors_by_brute_force(normal(5, 1).numpy(), state["codes"].numpy(), 5, 0.5)
    close(scored(score, field, normal(5, 1), state=state), expected)


def test_latent_neighbours_are_those_of_the_latent_codes():
    flow, field = gaussian()
    known, new = MEANS + STDS * normal(100, 4, seed=0), MEANS + 2 * STDS * normal(20, 4)
    score = Neighbors(space="latent")
    state = score.fit(field, known, None, {})
    latent = [((rows - flow.mean) / flow.std).numpy() for rows in (new, known)]
    expected = neighbors_by_brute_force(*latent, 5, 0.5)
    close_as_solved(scored(score, field, new, state=state), expected)
    assert not np.allclose(expected, neighbors_by_brute_force(new.numpy(), known.numpy(), 5, 0.5), rtol=0.1)


def test_latent_neighbours_are_found_in_as_many_steps_as_are_asked_for():
    known, new, field = normal(30, 4, seed=0), normal(9, 4), field_of(shaken(MLP(width=8), (4,)), n_steps=7)
    found = []
    for score, places in (
        (Neighbors(space="latent", n_steps=2), replace(field, n_steps=2)),
        (Neighbors(space="latent", n_steps=2), field),
        (Neighbors(space="latent"), field),
    ):
        with torch.no_grad():
            state = score.fit(places, known, None, {})
        found.append(scored(score, places, new, state=state))
    close(found[0], found[1])
    assert not torch.allclose(found[1], found[2], rtol=1e-6)


def test_latent_neighbours_know_their_own_conditions_through_later_fits():
    """A velocity equal to the condition: the latent code is the row less its condition."""
    field = field_of(lambda x, t, condition: condition.expand_as(x), (2,), n_steps=2)
    score, rows = Neighbors(n_neighbors=2, locality=0.0, space="latent"), [normal(20, 2, seed=k) for k in range(3)]
    conditions = [torch.full((20, 1), float(k), dtype=torch.float64) for k in range(3)]
    state = score.fit(field, rows[0], conditions[0], {})
    state = score.fit(field, rows[1], conditions[1], state)
    reference = torch.cat([rows[1] - 1, rows[0]]).numpy()
    expected = neighbors_by_brute_force((rows[2] - 2).numpy(), reference, 2, 0.0)
    close(scored(score, field, rows[2], conditions[2], state), expected)


# -- several scores as one ----------------------------------------------------------------------------------------


def sums(contributions):
    return contributions.flatten(1).sum(1)


PARTS = (OneStep(), Latent(), Neighbors(n_neighbors=2, locality=0.0))


def combined(field, shape=(4,), parts=PARTS, weights=None, n_rows=40):
    """A combination that was fitted and calibrated, its state, and that of the neighbours."""
    score, known = Combined(parts, weights), normal(n_rows, *shape, seed=0)
    with torch.no_grad():
        state = score.fit(field, known, None, {})
        return score, score.calibrate(field, state, normal(n_rows, *shape, seed=1), None)


@SHAPES
def test_combined_is_the_geometric_mean_of_its_parts_in_units_of_held_out_rows(shape):
    field = field_of(lambda x, t: torch.sin(x) + t, shape, n_steps=5)
    score, state = combined(field, shape)
    alone = [part.fit(field, normal(40, *shape, seed=0), None, {}) for part in PARTS]

    def logs(rows):
        found = [sums(scored(part, field, rows, state=kept)) for part, kept in zip(PARTS, alone, strict=True)]
        return torch.stack([(s + floor).log() for s, floor in zip(found, floors, strict=True)])

    held = normal(40, *shape, seed=1)
    floors = [
        1e-3 * sums(scored(part, field, held, state=kept)).mean() for part, kept in zip(PARTS, alone, strict=True)
    ]
    weight = 1 / logs(held).std(1, correction=0)
    weight = weight / weight.sum()
    assert weight.max() > 1.1 * weight.min()
    new = 2 * normal(10, *shape, seed=2)
    expected = (weight[:, None] * (logs(new) - logs(held).mean(1, keepdim=True))).sum(0).exp()
    found = scored(score, field, new, state=state)
    assert found.shape == new.shape
    close(sums(found), expected)
    close(sums(scored(score, field, held, state=state)).log().mean(), 0.0)
    with torch.no_grad():
        close(sum(state["weight"]), 1.0)


def test_a_numbers_contribution_is_its_share_of_each_part_weighted():
    field = field_of(lambda x, t: torch.sin(x) + t, n_steps=5)
    score, state = combined(field)
    new = 2 * normal(10, 4, seed=2)
    parts = [scored(part, field, new, state=part.fit(field, normal(40, 4, seed=0), None, {})) for part in PARTS]
    floors = state["floor"][:, None, None] / 4
    shares = [(part + floor) / (part + floor).sum(1, keepdim=True) for part, floor in zip(parts, floors, strict=True)]
    found = scored(score, field, new, state=state)
    expected = sum(weight * share for weight, share in zip(state["weight"], shares, strict=True))
    close(found / found.sum(1, keepdim=True), expected)
    assert (found > 0).all()


def test_a_part_counts_as_much_as_its_weight_says():
    field, new = field_of(lambda x, t: torch.sin(x) + t), 2 * normal(10, 4, seed=2)
    weights = [combined(field, parts=PARTS, weights=weights)[1]["weight"] for weights in (None, (1, 1, 1), (4, 2, 2))]
    assert torch.equal(weights[0], weights[1])
    close(weights[2], weights[0] * torch.tensor([2.0, 1.0, 1.0]) / (1 + weights[0][0]))
    twice, state = combined(field, parts=(OneStep(), OneStep(), Latent()))
    score, other = combined(field, parts=(OneStep(), Latent()), weights=(2, 1))
    close(scored(twice, field, new, state=state), scored(score, field, new, state=other))


def test_a_combination_of_one_score_is_that_score_in_its_own_units():
    field = field_of(lambda x, t: torch.sin(x))
    score, state = combined(field, parts=(OneStep(),))
    new = 3 * normal(10, 4, seed=2)
    alone = sums(scored(OneStep(), field, new)) + state["floor"][0]
    close(sums(scored(score, field, new, state=state)), alone / state["typical"].exp())


def test_combined_scores_do_not_change_with_the_units_of_a_part():
    new = 2 * normal(10, 4, seed=2)
    found = []
    for unit in (1.0, 1000.0):
        field = field_of(lambda x, t, unit=unit: unit * torch.sin(x) + x)
        score, state = combined(field, parts=(OneStep(), Neighbors()))
        found.append(scored(score, field, new, state=state))
    close(found[0], found[1])


def test_combined_scores_keep_their_unit_when_training_goes_on():
    field = field_of(lambda x, t: torch.sin(x) + t, n_steps=5)
    score, state = combined(field)
    more = normal(30, 4, seed=5) + 3
    with torch.no_grad():
        later = score.fit(field, more, None, state)
    for name in ("floor", "typical", "weight"):
        assert torch.equal(state[name], later[name])
    assert torch.equal(later["2.codes"][30:], state["2.codes"])
    assert len(later["2.codes"]) == 70


def test_a_part_that_is_zero_everywhere_leaves_scores_finite_and_the_ranking_to_the_others():
    field = field_of(lambda x, t: x)
    score, state = combined(field, parts=(OneStep(), Latent()))
    assert (scored(OneStep(), field, normal(10, 4)) == 0).all()
    new = torch.linspace(0, 3, 10, dtype=torch.float64)[:, None].expand(10, 4)
    found = scored(score, field, new, state=state)
    assert found.isfinite().all()
    assert (sums(found).diff() > 0).all()


def test_one_held_out_row_makes_a_unit_and_equal_weights():
    field = field_of(lambda x, t: torch.sin(x))
    with torch.no_grad():
        state = Combined(PARTS).fit(field, normal(20, 4, seed=0), None, {})
        state = Combined(PARTS).calibrate(field, state, normal(1, 4), None)
        close(state["weight"], [1 / 3] * 3)
        close(sums(scored(Combined(PARTS), field, normal(1, 4), state=state)), [1.0])


# -- every score --------------------------------------------------------------------------------------------------

ALL = {
    **{name: kind() for name, kind in SCORES.items()},
    "latent neighbors": Neighbors(space="latent"),
    "all combined": Combined((OneStep((0.5, 1.0)), Latent(), Denoising(), Rebuilding(), Neighbors())),
    "estimated likelihood": Likelihood(n_probes=2),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("shape", "conditional"), [((4,), False), ((4,), True), ((2, 3), True)], ids=["table", "given", "signal, given"]
)
def test_a_rows_contributions_have_its_shape_and_do_not_depend_on_the_other_rows(name, shape, conditional):
    score, size = ALL[name], 3 if conditional else 0
    field = field_of(shaken(MLP(width=8), shape, size), shape, n_steps=3, solver="midpoint")
    rows, condition = normal(30, *shape, seed=0), normal(30, 3, seed=1) if conditional else None
    known, of_known = rows[:20], None if condition is None else condition[:20]
    held, of_held = rows[10:], None if condition is None else condition[10:]
    with torch.no_grad():
        state = score.calibrate(field, score.fit(field, known, of_known, {}), held, of_held)
    together = scored(score, field, rows, condition, state)
    assert together.shape == rows.shape
    assert together.dtype == torch.float64
    for part in (slice(3, 4), slice(27, 30)):
        alone = scored(score, field, rows[part], None if condition is None else condition[part], state)
        close(alone, together[part], atol=1e-11)
    if conditional and score != Neighbors():  # which looks at the rows only
        assert not torch.allclose(scored(score, field, rows, condition.flip(0), state), together)


@pytest.mark.parametrize("name", [name for name, score in ALL.items() if not score.is_density])
def test_contributions_are_never_negative(name):
    score, field = ALL[name], field_of(shaken(MLP(width=8), (4,)), n_steps=3)
    with torch.no_grad():
        state = score.calibrate(field, score.fit(field, normal(20, 4, seed=0), None, {}), normal(9, 4, seed=3), None)
    assert (scored(score, field, normal(10, 4, seed=4), None, state) >= 0).all()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (OneStep(()), r"times must be a tuple of times in \(0, 1\], got \(\)"),
        (OneStep(1.0), "times must be a tuple"),
        (OneStep((0.0, 1.0)), r"times must be a number in \(0, 1\], got 0.0"),
        (OneStep((1.5,)), "times must be"),
        (OneStep((math.nan,)), "times must be"),
        (Likelihood(0), "n_probes must be an integer >= 1, got 0"),
        (Denoising(times=("a",)), "times must be"),
        (Denoising(n_noises=0), "n_noises must be"),
        (Rebuilding(time=1.0), r"time must be a number in \[0, 1\), got 1.0"),
        (Rebuilding(time=-0.1), "time must be"),
        (Rebuilding(n_noises=2.5), "n_noises must be"),
        (Reconstruction(size=0), "size must be"),
        (Reconstruction(n_samples=0), "n_samples must be"),
        (Neighbors(n_neighbors=0), "n_neighbors must be"),
        (Neighbors(locality=1.1), r"locality must be a number in \[0, 1\], got 1.1"),
        (Neighbors(space="code"), "unknown space 'code'. Choose one of 'data', 'latent'"),
        (Neighbors(max_reference=1), "max_reference must be"),
        (Combined(()), r"scores must be a tuple of scores, got \(\)"),
        (Combined(OneStep()), "scores must be a tuple of scores, got OneStep"),
        (Combined((OneStep(), "latent")), "scores holds 'latent'"),
        (Combined((Likelihood(),)), "scores holds Likelihood"),
        (Combined((Reconstruction(),)), "scores holds Reconstruction"),
        (Combined((Combined(),)), "scores holds Combined"),
        (Combined((Neighbors(locality=2),)), "locality must be"),
        (Combined((Latent(),), weights=(1, 2)), r"weights must be 1 numbers, one a score, got \(1, 2\)"),
        (Combined((Latent(),), weights=2.0), "weights must be"),
        (Combined((Latent(), OneStep()), weights=(1, 0)), r"weights must be a number in \(0, inf\), got 0"),
        (Neighbors(n_steps=0), "n_steps must be"),
    ],
    ids=repr,
)
def test_bad_parameters_are_named(score, message):
    with pytest.raises(ValueError, match=message):
        score.validate()


@pytest.mark.parametrize("name", ALL)
def test_the_tested_scores_are_valid(name):
    ALL[name].validate()
    Neighbors(locality=1, max_reference=2).validate()
    Rebuilding(time=0).validate()


@pytest.mark.parametrize("seed", [0, 2, 3, 4])
def test_neighbors_at_equal_distances_are_the_same_in_any_batch(seed):
    rng = np.random.default_rng(seed)
    scale, center = rng.uniform(0.5, 2, 3), rng.normal(size=3)
    rows, new = (torch.as_tensor((rng.integers(0, 4, (n, 3)) - center) / scale) for n in (16, 40))
    score, field = Neighbors(), field_of(lambda x, t: x, shape=(3,))
    state = score.fit(field, rows, None, {})
    whole = score.contributions(field, state, new, None)
    alone = torch.cat([score.contributions(field, state, row[None], None) for row in new])
    assert torch.equal(whole, alone)
