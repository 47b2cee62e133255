"""Conditions of several kinds together, and conditions that are grids."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import FlowMatchingGenerator, load
from flowmatch.networks import UNet
from flowmatch.preprocessing import GridEncoder, LabelEncoder, MixedEncoder, NumberEncoder, fit_conditions

N = 60
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 1, 6, 5)).astype(np.float32)
FRAME = pd.DataFrame(
    {
        "fault": RNG.choice(["inner", "outer", "none"], N),
        "load": RNG.gamma(2.0, size=N),
        "bearing": pd.Categorical(RNG.integers(1, 4, N)),
        "wet": RNG.random(N) < 0.5,
    }
)
CONTEXT = RNG.normal(3.0, 2.0, size=(N, 2, 6, 5))


def quick(**parameters):
    return FlowMatchingGenerator(
        **{"network": UNet(width=8), "max_iter": 3, "batch_size": 16, "random_state": 0, **parameters}
    )


# -- mixed columns ------------------------------------------------------------------------------------------------


def test_labels_become_one_hot_beside_standardised_numbers_and_a_flag():
    encoder = fit_conditions(FRAME, None)
    assert isinstance(encoder, MixedEncoder)
    vectors = encoder.encode(FRAME, N)
    assert vectors.shape == (N, encoder.size) == (N, 3 + 1 + 3 + 1 + 1)
    np.testing.assert_array_equal(
        vectors[:, :3], FRAME["fault"].to_numpy()[:, None] == np.array(["inner", "none", "outer"])
    )
    load_of = FRAME["load"].to_numpy()
    np.testing.assert_allclose(vectors[:, 3], (load_of - load_of.mean()) / load_of.std(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(vectors[:, 4:7], FRAME["bearing"].to_numpy()[:, None] == np.array([1, 2, 3]))
    np.testing.assert_array_equal(vectors[:, 8], 1)


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (FRAME[["fault"]], LabelEncoder),
        (FRAME[["load", "wet"]], NumberEncoder),
        (FRAME[["bearing", "load"]], MixedEncoder),
        (FRAME[["fault", "bearing"]], MixedEncoder),
        (FRAME[["fault", "load"]].to_numpy(), MixedEncoder),
        (FRAME[["fault"] * 2].to_numpy().astype(str), MixedEncoder),
    ],
    ids=["one label", "numbers", "category", "two labels", "objects", "text"],
)
def test_what_columns_are_taken_for(y, kind):
    assert isinstance(fit_conditions(y, None), kind)


def test_mixed_conditions_are_drawn_as_they_occur_and_keep_their_dtypes():
    model = quick().fit(X, FRAME)
    _, y = model.sample(2 * N, return_y=True, random_state=0)
    assert list(y.columns) == list(FRAME.columns)
    assert y.dtypes[["load", "wet"]].tolist() == FRAME.dtypes[["load", "wet"]].tolist()
    discrete = ["fault", "bearing", "wet"]
    rows = {tuple(row) for row in FRAME[discrete].astype(object).to_numpy().tolist()}
    assert {tuple(row) for row in y[discrete].astype(object).to_numpy().tolist()} <= rows
    assert (y["fault"].value_counts() == 2 * FRAME["fault"].value_counts()).all()


def test_mixed_conditions_come_as_one_row_or_one_each():
    model = quick().fit(X, FRAME)
    one = ["inner", 1.5, 2, True]
    alike = [
        model.sample(4, y=y, random_state=0) for y in (one, [one] * 4, pd.DataFrame([one] * 4, columns=FRAME.columns))
    ]
    np.testing.assert_array_equal(alike[0], alike[1])
    np.testing.assert_array_equal(alike[0], alike[2])
    assert not np.array_equal(alike[0], model.sample(4, y=["outer", 1.5, 2, True], random_state=0))


BAD_ROWS = {
    "label": (["cracked", 1.0, 2, True], "column 'fault' of y holds the label 'cracked'.*'inner', 'none', 'outer'"),
    "category": (["inner", 1.0, 9, True], "column 'bearing' of y holds the label 9"),
    "number": (["inner", "heavy", 2, True], "column 'load' of y must hold numbers"),
    "nan": (["inner", np.nan, 2, True], "y contains NaN"),
    "too few": (["inner", 1.0], "expected one condition of 4 entries"),
    "wrong count": ([["inner", 1.0, 2, True]] * 3, "one for each of 5 samples"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_bad_mixed_conditions_are_refused_by_column(what):
    y, message = BAD_ROWS[what]
    with pytest.raises(ValueError, match=message):
        quick().fit(X, FRAME).sample(5, y=y)


def test_columns_of_conditions_are_matched_by_name():
    model = quick().fit(X, FRAME)
    with pytest.raises(ValueError, match=r"y has the columns \['wet', 'load'.*in training they were \['fault', 'load'"):
        model.sample(N, y=FRAME[["wet", "load", "bearing", "fault"]])


def test_equal_numbers_that_are_not_binary_fractions_are_not_divided_by_their_rounding():
    amounts = np.column_stack([np.full(60, 0.1), np.arange(60.0)])
    encoder = fit_conditions(amounts, None)
    np.testing.assert_allclose(encoder.encode([[0.2, 29.5]], 1), [[0.1, 0.0, 1.0]], rtol=1e-6)


def test_rows_of_mixed_lists_keep_their_numbers():
    y = [[float(i), "ab"[i % 2]] for i in range(N)]
    assert isinstance(fit_conditions(y, None), MixedEncoder)
    assert quick().fit(X, y).sample(2, y=[0.25, "b"]).shape == (2, 1, 6, 5)


def test_tensors_with_gradients_are_conditions_too():
    y = torch.tensor(FRAME["load"].to_numpy()).requires_grad_()
    assert isinstance(fit_conditions(y, None), NumberEncoder)


def test_categories_are_labels_whatever_they_hold():
    assert isinstance(fit_conditions(pd.Series(np.arange(60) / 2, dtype="category"), None), LabelEncoder)


def test_weights_of_mixed_conditions_act_like_repeated_rows():
    counts = 1 + np.arange(N) % 3
    weighted = fit_conditions(FRAME, counts / counts.mean())
    repeated = fit_conditions(FRAME.loc[np.repeat(np.arange(N), counts)], None)
    np.testing.assert_allclose(weighted.encode(FRAME, N), repeated.encode(FRAME, N), rtol=1e-5, atol=1e-6)


# -- grids --------------------------------------------------------------------------------------------------------


def test_grids_are_standardised_flattened_and_flagged():
    encoder = fit_conditions(CONTEXT, None, (1, 6, 5))
    assert isinstance(encoder, GridEncoder)
    vectors = encoder.encode(CONTEXT, N)
    assert vectors.shape == (N, encoder.size) == (N, 1 + 60)
    assert encoder.context_channels == 2
    np.testing.assert_array_equal(vectors[:, 0], 1)
    mean, std = CONTEXT.mean(axis=(0, 2, 3), keepdims=True), CONTEXT.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(vectors[:, 1:], ((CONTEXT - mean) / std).reshape(N, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["mlp", "unet", "transformer"])
def test_networks_are_conditioned_on_grids(network):
    model = quick(network=network, learning_rate=0.02).fit(X, CONTEXT)
    drawn = model.sample(3, y=CONTEXT[:3], random_state=0)
    assert drawn.shape == (3, 1, 6, 5)
    assert not np.allclose(drawn, model.sample(3, y=CONTEXT[3:6], random_state=0))
    np.testing.assert_array_equal(
        model.sample(3, y=CONTEXT[0], random_state=0)[0], model.sample(3, y=CONTEXT[[0] * 3], random_state=0)[0]
    )
    assert np.isfinite(model.score_samples(X[:2], CONTEXT[:2], n_probes=2)).all()


def test_a_grid_condition_is_learned():
    """Samples follow the field they are conditioned on: x = y + small noise."""
    context = RNG.normal(size=(400, 1, 8)).astype(np.float32)
    signals = 2 * context + 0.1 * RNG.normal(size=context.shape).astype(np.float32)
    model = quick(max_iter=150, batch_size=32, network=UNet(width=8)).fit(signals[:300], context[:300])
    drawn = model.sample(100, y=context[300:], random_state=0)
    error = np.abs(drawn - signals[300:]).mean()
    assert error < 0.4 * np.abs(signals[300:] - signals[:100]).mean()  # far closer than another sample would be


@pytest.mark.parametrize("kind", ["float32", "torch", "memory map"])
def test_grids_of_any_kind_give_the_same_model(kind, tmp_path):
    context = CONTEXT.astype(np.float32)
    np.save(tmp_path / "y.npy", context)
    data = {
        "float32": context,
        "torch": torch.as_tensor(context),
        "memory map": np.load(tmp_path / "y.npy", mmap_mode="r"),
    }
    plain, other = quick().fit(X, context), quick().fit(X, data[kind])
    np.testing.assert_array_equal(
        plain.sample(3, y=context[:3], random_state=0), other.sample(3, y=data[kind][:3], random_state=0)
    )


def test_grids_are_not_kept_so_sampling_needs_them():
    with pytest.raises(ValueError, match="conditioned on grids, which it does not keep: pass them as y"):
        quick().fit(X, CONTEXT).sample(2)


BAD_GRIDS = {
    "other grid": (CONTEXT[:, :, :4], r"y has 4 dimensions \(60, 2, 4, 5\).*with grid \(6, 5\)"),
    "nan": (np.where(CONTEXT[3, 1, 2, 2] == CONTEXT, np.nan, CONTEXT), "y contains NaN"),
    "text": (np.full((N, 1, 6, 5), "a"), "y has 4 dimensions"),
    "rows": (CONTEXT[:9], "y has 9 rows, but X has 60"),
}


@pytest.mark.parametrize("what", BAD_GRIDS)
def test_bad_grids_are_refused_before_training(what):
    y, message = BAD_GRIDS[what]
    model = quick()
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)
    assert not hasattr(model, "network_")


@pytest.mark.parametrize("y", ["a", 3.0, CONTEXT[:2].astype(complex), np.arange(N)])
def test_other_conditions_than_grids_are_refused(y):
    with pytest.raises(ValueError, match="y has (shape|dtype)"):
        quick().fit(X, CONTEXT).sample(2, y=y)


def test_a_fit_with_grids_does_not_go_on_with_labels():
    with pytest.raises(ValueError, match="y has shape"):
        quick().fit(X, CONTEXT).partial_fit(X, np.arange(N))


def test_a_grid_of_another_shape_is_refused_at_sampling():
    with pytest.raises(ValueError, match=r"expected one grid of shape \(2, 6, 5\)"):
        quick().fit(X, CONTEXT).sample(2, y=CONTEXT[:2, :1])


# -- both ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mixed", "grid"])
def test_models_are_saved_and_pickled_with_their_conditions(kind, tmp_path):
    y = FRAME if kind == "mixed" else CONTEXT
    model = quick().fit(X, y)
    model.save(tmp_path / "model")
    drawn = model.sample(N, y=y, random_state=0, guidance_scale=2.0)
    for other in (load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.sample(N, y=y, random_state=0, guidance_scale=2.0), drawn)
    if kind == "mixed":
        np.testing.assert_array_equal(
            load(tmp_path / "model").sample(7, random_state=0), model.sample(7, random_state=0)
        )


@pytest.mark.parametrize("kind", ["mixed", "grid"])
def test_fits_go_on_with_the_same_conditions(kind):
    y = FRAME if kind == "mixed" else CONTEXT
    model = quick().fit(X, y).partial_fit(X[:30], y[:30])
    assert model.n_iter_ == 6
    assert model.sample(2, y=y[:2]).shape == (2, 1, 6, 5)
