"""What users get wrong is told before training starts, and harms nothing; what is merely odd works."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from flowmatch import FlowMatchingGenerator
from flowmatch.flow import LogitNormalTimes, OptimalTransportCoupling, SparseSource, VariancePreservingPath
from flowmatch.networks import MLP
from flowmatch.objectives import MinSNRWeight, PseudoHuberLoss
from flowmatch.preprocessing import QuantileNormal
from flowmatch.training import TrainingOptions

N = 60
SMALL = {"network": MLP(width=8, depth=1), "max_iter": 5, "batch_size": 32, "n_steps": 2, "random_state": 0}


def generator(**parameters):
    return FlowMatchingGenerator(**{**SMALL, **parameters})


def frame(n=N):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {"length": rng.gamma(2.0, size=n), "count": rng.integers(0, 9, n), "flag": np.arange(n) % 2 == 0}
    )


def table(n=N):
    return frame(n).to_numpy(float)


LABELS = np.repeat(["a", "b", "c"], N // 3)
AMOUNTS = np.random.default_rng(1).normal(size=(N, 2))


@pytest.fixture
def labelled():
    return generator().fit(frame(), LABELS)


@pytest.fixture
def plain():
    return generator().fit(table())


@pytest.fixture
def measured():
    return generator().fit(table(), AMOUNTS)


@pytest.fixture
def refuses(monkeypatch):
    """Check that a call is refused before any training, and leaves the fitted estimator as it was."""

    def refuse_training(*_, **__):
        raise AssertionError("training started")

    def check(estimator, call, message, error=ValueError, **parameters):
        before, fitted = estimator.sample(4, random_state=0), dict(vars(estimator))
        defaults = {name: fitted[name] for name in parameters}
        vars(estimator).update(parameters)
        with monkeypatch.context() as patched:
            patched.setattr("flowmatch.training.train", refuse_training)
            with pytest.raises(error, match=message):
                call(estimator)
        for name, value in parameters.items():
            assert getattr(estimator, name) is value
        vars(estimator).update(defaults)
        assert vars(estimator).keys() == fitted.keys()
        for name, value in fitted.items():
            assert vars(estimator)[name] is value, name
        np.testing.assert_array_equal(np.asarray(estimator.sample(4, random_state=0)), np.asarray(before))

    return check


def replaced(value, row=7, column=1):
    X = table()
    X[row, column] = value
    return X


def framed(value, column="count"):
    X = frame().astype({column: float})
    X.loc[7, column] = value
    return X


# -- X --------------------------------------------------------------------------------------------------------------

BAD_TABLES = {
    "infinity": (replaced(-np.inf), r"X contains infinity: position \(7, 1\)"),
    "infinity_in_a_frame": (framed(np.inf), r"X contains infinity: column 'count', row 7"),
    "nan_in_a_grid": (np.full((5, 2, 3), np.nan), r"X contains NaN: position \(0, 0, 0\)"),
    "beyond_float32": (replaced(1e39), r"X contains 1e\+39, a value too large for dtype\('float32'\)"),
    "beyond_float32_in_a_frame": (framed(-1e300), r"-1e\+300, a value too large .*column 'count', row 7"),
    "empty": (np.empty((0, 3)), r"0 sample\(s\)"),
    "no_columns": (np.empty((9, 0)), r"0 feature\(s\)"),
    "grid_without_points": (np.empty((9, 2, 0)), r"X has shape \(9, 2, 0\)"),
    "one_row": (table(1), r"1 sample\(s\).*minimum of 2"),
    "one_dimension": (np.arange(9.0), r"Expected 2D array, got 1D array"),
    "a_number": (3.0, r"Expected 2D array, got scalar array"),
    "ragged": ([[1.0, 2.0], [3.0]], r"X is a list of rows of unequal lengths: X\[0\] has 2 entries and X\[1\] has 1"),
    "mixed_column": (frame().assign(size=[1.0] * (N - 1) + ["?"]), r"column 'size' of X mixes types: row 59 holds '\?' \(str\)"),
    "mixed_text": (frame().assign(size=["a"] * 30 + [3] + ["b"] * 29), r"column 'size' of X mixes types: row 30 holds 3 \(int\)"),
    "mixed_objects": (np.array([[1.0, "x"], [2.0, "y"], [3.0, 4]] * 3, dtype=object), r"column 1 of X mixes types: row 2 holds 4 \(int\)"),
    "identifiers": (pd.DataFrame({"key": [f"n{i}" for i in range(10_000)]}), r"'key' of X looks like an identifier: 10000 different"),
    "a_table_without_a_value": (np.full((N, 3), np.nan), r"X holds no value at all"),
    "several_columns": (
        frame().assign(size=["?"] + [1.0] * (N - 1), key=[f"n{i}" for i in range(N - 1)] + [3], wave=1j),
        r"^3 columns of X do not fit:\ncolumn 'size' .*\ncolumn 'key' .*\nComplex data not supported: column 'wave'",
    ),
    "complex": (table() + 1j, r"Complex data not supported"),
    "complex_column": (frame().assign(wave=1j), r"column 'wave' of X has dtype complex128"),
    "complex_tensor": (torch.ones(4, 2, dtype=torch.complex64), r"Complex data not supported"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD_TABLES)
def test_bad_rows_are_refused_before_training(what, plain, refuses):
    X, message = BAD_TABLES[what]
    refuses(plain, lambda model: model.fit(X), message)


def test_fit_and_partial_fit_need_two_rows(plain, refuses):
    refuses(plain, lambda model: model.partial_fit(table(1)), r"1 sample\(s\).*minimum of 2")


@pytest.mark.parametrize("method", ["partial_fit", "score_samples", "score", "encode"])
@pytest.mark.parametrize("what", ["infinity", "beyond_float32", "empty", "one_dimension", "complex"])
def test_bad_rows_are_refused_after_training_too(what, method, plain, refuses):
    X, message = BAD_TABLES[what]
    refuses(plain, lambda model: getattr(model, method)(X), message)


TEXT_TABLES = {
    "text": (frame().assign(colour="red"), r"column 'colour' of X holds text \(such as 'red'\); with categorical_features=None"),
    "category": (frame().assign(kind=pd.Categorical(LABELS)), r"column 'kind' of X holds categories \(such as 'a'\)"),
    "string": (frame().assign(kind=pd.array(LABELS, dtype="string")), r"column 'kind' of X holds text"),
    "number_for_a_name": (pd.DataFrame({0: [1.0, 2.0], 7: ["x", "y"]}), r"column 7 of X holds text"),
    "double_name": (pd.DataFrame([[1.0, "x"], [2.0, "y"]], columns=["a", "a"]), r"column 'a' of X holds text"),
    "objects": (np.array([[1.0, "x"], [2.0, "y"]], dtype=object), r"column 1 of X holds text \(such as 'x'\)"),
    "array": (np.array([["1", "x"], ["2", "y"]]), r"column 0 of X holds text \(such as '1'\)"),
}  # fmt: skip


@pytest.mark.parametrize("what", TEXT_TABLES)
def test_text_is_refused_where_there_shall_be_no_categories(what, plain, refuses):
    X, message = TEXT_TABLES[what]
    refuses(plain, lambda model: model.fit(X), message, categorical_features=None)


@pytest.mark.parametrize("method", ["partial_fit", "score_samples", "encode"])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (replaced(np.nan), r"X contains NaN: position \(7, 1\)"),
        (torch.as_tensor(replaced(np.nan)), r"X contains NaN: position \(7, 1\)"),
    ],
    ids=["array", "tensor"],
)
def test_missing_cells_are_refused_by_models_that_do_not_know_them(method, X, message, refuses):
    model = generator(masked_share=0.0).fit(table())
    refuses(model, lambda model: getattr(model, method)(X), message)


def test_missing_cells_of_frames_are_named_by_models_that_do_not_know_them(refuses):
    model = generator(masked_share=0.0).fit(frame())
    refuses(model, lambda model: model.score_samples(framed(np.nan)), r"X contains NaN: column 'count', row 7")
    nullable = frame().assign(flag=pd.array([None, True] * (N // 2), dtype="boolean"))
    refuses(model, lambda model: model.score_samples(nullable), r"NaN: column 'flag', row 0")


def test_tables_without_a_value_in_the_rows_that_count_are_refused(plain, tmp_path, refuses):
    X, weight = table(), np.ones(N)
    X[1:], weight[0] = np.nan, 0.0
    message = "X holds no value at all"
    refuses(plain, lambda model: model.fit(X, sample_weight=weight), message)
    np.save(tmp_path / "table.npy", X[1:])
    refuses(plain, lambda model: model.fit(np.load(tmp_path / "table.npy", mmap_mode="r")), message)


def test_objects_that_are_no_numbers_are_a_type_error(plain, refuses):
    X = table().astype(object)
    X[0, 0] = {"a": 1}
    refuses(plain, lambda model: model.fit(X), "argument must be .* string.* number", TypeError)


def test_sparse_data_are_a_type_error(plain, refuses):
    from scipy.sparse import csr_array

    refuses(plain, lambda model: model.fit(csr_array(table())), "[Ss]parse", TypeError)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
@pytest.mark.parametrize("method", ["partial_fit", "score_samples", "encode"])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (frame()[["length", "count"]], "feature names should match.*\n.*missing(.|\n)*flag"),
        (frame().assign(more=1.0), "feature names should match.*\n.*unseen(.|\n)*more"),
        (frame()[["count", "length", "flag"]], "Feature names must be in the same order as they were in fit"),
        (table()[:, :2], r"X has 2 features, but FlowMatchingGenerator is expecting 3 features"),
    ],
    ids=["fewer", "more", "order", "array"],
)
def test_other_columns_than_in_fit_are_refused(method, X, message, labelled, refuses):
    refuses(labelled, lambda model: getattr(model, method)(X, LABELS), message)


@pytest.mark.parametrize("shape", [(6, 2, 4), (6, 3, 5), (6, 2, 5, 1), (6, 2)])
def test_another_shape_of_grid_than_in_fit_is_refused(shape, refuses):
    model = generator().fit(np.random.default_rng(0).normal(size=(20, 2, 5)))
    refuses(model, lambda model: model.score_samples(np.zeros(shape)), r"samples of shape|expecting 2 features")


@pytest.mark.parametrize("names", [["a", 1, "c"]])
def test_mixed_column_names_are_a_type_error(names, plain, refuses):
    refuses(plain, lambda model: model.fit(frame().set_axis(names, axis=1)), "string", TypeError)


def test_negative_rows_are_refused_by_log1p(plain, refuses):
    refuses(plain, lambda model: model.fit(replaced(-1.0)), r"log1p.*>= 0.*column 1.*-1", preprocessing="log1p")


# -- y and sample_weight ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS[:-1], "y has 59 rows, but X has 60"),
        (AMOUNTS[:-2], "y has 58 rows, but X has 60"),
        (np.where(LABELS == "a", None, LABELS), "y contains NaN"),
        (np.where(np.arange(N) == 3, np.nan, 1.0), "y contains NaN"),
        (np.where(np.arange(N) == 3, np.inf, 1.5), "y contains NaN or infinity"),
        (np.array([1, "a"] * (N // 2), dtype=object), "y mixes types that cannot be sorted: int, str"),
        (
            np.array([["a", 1], [2, 1]] * (N // 2), dtype=object),
            "column 0 of y mixes types that cannot be sorted: int, str",
        ),
        (np.zeros((N, 2, 2)), "y has 3 dimensions"),
    ],
)
def test_bad_conditions_are_refused_before_training(y, message, plain, refuses):
    refuses(plain, lambda model: model.fit(table(), y), message)


BAD_WEIGHTS = {
    "negative": (np.where(np.arange(N) == 3, -1.0, 1.0), "sample_weight must hold finite numbers >= 0"),
    "nan": (np.where(np.arange(N) == 3, np.nan, 1.0), "sample_weight must hold finite numbers >= 0"),
    "infinite": (np.full(N, np.inf), "sample_weight must hold finite numbers >= 0"),
    "all_zero": (np.zeros(N), "sample_weight is zero for every row"),
    "one_positive": (np.eye(N)[0], "sample_weight leaves fewer than 2 rows"),
    "two_dimensional": (np.ones((N, 1)), r"sample_weight has shape \(60, 1\); expected \(60,\)"),
    "shorter": (np.ones(N - 1), "sample_weight has 59 rows, but X has 60"),
    "text": (["heavy"] * N, "sample_weight must hold finite numbers"),
}


@pytest.mark.parametrize("what", BAD_WEIGHTS)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_bad_weights_are_refused_before_training(what, method, plain, refuses):
    weight, message = BAD_WEIGHTS[what]
    refuses(plain, lambda model: getattr(model, method)(table(), sample_weight=weight), message)


def test_unequal_lengths_are_told_by_name(plain, refuses):
    refuses(plain, lambda model: model.fit(table(), LABELS[:-1]), r"\by\b.*59")
    refuses(plain, lambda model: model.fit(table(), sample_weight=np.ones(3)), r"sample_weight.*3")


@pytest.mark.parametrize("method", ["sample", "score_samples", "score", "encode", "decode", "partial_fit"])
def test_labels_never_seen_are_refused_by_name(method, labelled, refuses):
    unseen = np.where(np.arange(N) == 4, "zebra", LABELS)
    argument = {"sample": N, "decode": np.zeros((N, 3))}.get(method, frame())
    refuses(
        labelled, lambda model: getattr(model, method)(argument, unseen), r"label 'zebra'.*Known labels: 'a', 'b', 'c'"
    )


def test_a_label_never_seen_is_refused_for_one_sample_too(labelled, refuses):
    refuses(labelled, lambda model: model.sample(3, y=1), r"label 1, which was not there in training")


@pytest.mark.parametrize("method", ["sample", "score_samples", "score", "encode", "decode", "partial_fit"])
def test_conditions_given_to_an_unconditional_model_are_refused(method, plain, refuses):
    argument = {"sample": N, "decode": np.zeros((N, 3))}.get(method, table())
    refuses(plain, lambda model: getattr(model, method)(argument, LABELS), "y was given, but .* without conditions")


def test_partial_fit_needs_the_conditions_that_fit_had(labelled, refuses):
    refuses(labelled, lambda model: model.partial_fit(frame()), "fitted with conditions y; pass them")


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_codes_need_conditions_if_no_dropout_taught_what_none_means(method, refuses):
    model = generator(condition_dropout=0.0).fit(table(), LABELS)
    argument = table()[:4] if method == "encode" else np.zeros((4, 3))
    refuses(model, lambda model: getattr(model, method)(argument), "condition_dropout > 0")


def test_a_density_needs_numeric_conditions_if_no_dropout_taught_what_none_means(refuses):
    model = generator(condition_dropout=0.0).fit(table(), AMOUNTS)
    refuses(model, lambda model: model.score_samples(table()), "condition_dropout > 0")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (LABELS[:5], r"y has shape \(5,\); expected one label, or one for each of 4 samples"),
        ([["a", "b"]] * 4, r"y has shape \(4, 2\)"),
        ([], r"y has shape \(0,\)"),
    ],
)
def test_a_wrong_number_of_labels_is_refused(y, message, labelled, refuses):
    refuses(labelled, lambda model: model.sample(4, y=y), message)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (1.0, r"y has shape \(\); expected one condition of 2 number"),
        (np.zeros((5, 2)), r"y has shape \(5, 2\).*each of 4 samples"),
        (np.zeros((4, 3)), r"y has shape \(4, 3\); expected one condition of 2 number"),
        ("a", r"y must hold numbers, as in training"),
        ([np.nan, 1.0], r"y contains NaN"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_wrong_numbers_are_refused(y, message, measured, refuses):
    refuses(measured, lambda model: model.sample(4, y=y), message)


# -- parameters -------------------------------------------------------------------------------------------------------

KNOWN_NAMES = {
    "network": "'auto', 'mlp'",
    "path": "'linear', 'vp', 'cosine'",
    "coupling": "'independent', 'ot'",
    "source": "'normal', 'matched', 'sparse'",
    "time_sampler": "'auto', 'uniform', 'stratified', 'u_shaped', 'logit_normal', 'data_emphasis', 'noise_emphasis'",
    "loss": "'l2', 'huber', 'sobolev', 'multiscale'",
    "loss_weight": "'uniform'.*'snr'.*'min_snr'.*'adaptive'",
    "preprocessing": "'auto'.*'standardize'.*'quantile'.*'minmax'.*'log1p'.*'none'",
    "solver": "'auto', 'flow_map', 'euler', 'midpoint', 'heun', 'rk4', 'ab2', .*'dopri5'",
}


@pytest.mark.parametrize("value", ["typo", "Linear", "", None, 3, ["linear"]], ids=repr)
@pytest.mark.parametrize("name", KNOWN_NAMES)
def test_unknown_names_are_refused_with_a_list_of_those_known(name, value, plain, refuses):
    message = rf"unknown {name} .*Choose one of {KNOWN_NAMES[name]}"
    refuses(plain, lambda model: model.fit(table()), message, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "training",
            TrainingOptions(schedule="step"),
            "unknown schedule 'step'. Choose one of 'cosine', 'linear', 'constant'",
        ),
        (
            "training",
            TrainingOptions(precision="int4"),
            "unknown precision 'int4'. Choose one of 'float32', 'bf16', 'fp16'",
        ),
        (
            "network",
            MLP(conditioning="telepathy"),
            "unknown conditioning 'telepathy'. Choose one of 'film', 'adaln', 'concat'",
        ),
        ("network", MLP(width=0), "width must be an integer >= 1, got 0"),
        ("network", torch.nn.Linear(2, 2), "unknown network Linear"),
        ("network", lambda *_: "no module", "factory returned str; expected a torch.nn.Module"),
        ("network", lambda *_: torch.nn.Identity(), "no parameters to train"),
        ("network", MLP, "factory returned MLP; expected a torch.nn.Module"),
        ("preprocessing", QuantileNormal(max_knots=1), "max_knots must be an integer >= 2, got 1"),
        ("path", MLP(), r"unknown path MLP\("),
        ("training", {"ema_decay": 0.9}, "training must be None or TrainingOptions"),
        ("training", TrainingOptions(ema_decay=1.0), r"ema_decay must be a number in \[0, 1\), got 1.0"),
        ("training", TrainingOptions(ema_decay="0.9"), r"ema_decay must be a number in \[0, 1\), got '0.9'"),
        ("coupling", OptimalTransportCoupling(block_size=0), "block_size must be an integer >= 1, got 0"),
        ("source", SparseSource(dropout_rate=2), r"dropout_rate must be a number in \[0, 1\), got 2"),
        ("loss", PseudoHuberLoss(scale=-1), r"scale must be a number in \(0, inf\), got -1"),
        ("loss_weight", MinSNRWeight(gamma=-5), r"gamma must be a number in \(0, inf\), got -5"),
        (
            "loss_weight",
            lambda t: 1.0,
            r"loss_weight must turn times of shape \(B,\) into a tensor of that shape, got float",
        ),
        ("path", VariancePreservingPath(first_time=0), r"first_time must be a number in \(0, 1\), got 0"),
        ("time_sampler", LogitNormalTimes(std="a"), r"std must be a number in \(0, inf\), got 'a'"),
        ("training", TrainingOptions(early_stopping="no"), "early_stopping must be True or False, got 'no'"),
        ("training", TrainingOptions(betas=0.9), r"betas must be two numbers in \[0, 1\), got 0.9"),
        ("training", TrainingOptions(weight_decay=-1.0), r"weight_decay must be a number in \[0, inf\), got -1.0"),
        ("training", TrainingOptions(weight_decay=np.inf), r"weight_decay must be a number in \[0, inf\), got inf"),
        ("training", TrainingOptions(warmup=1.5), r"warmup must be a number in \[0, 1\)"),
        ("training", TrainingOptions(patience=0), "patience must be an integer >= 1, got 0"),
        ("training", TrainingOptions(gradient_clipping=0), r"gradient_clipping must be a number in \(0, inf\), got 0"),
        ("training", TrainingOptions(validation_fraction=1.0), r"validation_fraction must be a number in \[0, 1\)"),
        ("training", TrainingOptions(validation_fraction=0.99), "validation_fraction=0.99 of 60 rows"),
        ("training", TrainingOptions(callbacks=[print]), "has none of the hooks"),
        ("training", TrainingOptions(callbacks=print), "callbacks"),
        ("max_iter", 0, "max_iter must be an integer >= 1, got 0"),
        ("max_iter", -3, "max_iter must be an integer >= 1, got -3"),
        ("max_iter", 2.5, "max_iter must be an integer >= 1, got 2.5"),
        ("max_iter", "10", "max_iter must be an integer >= 1, got '10'"),
        ("max_iter", True, "max_iter must be an integer >= 1, got True"),
        ("max_time", 0, r"max_time must be a number in \(0, inf\), got 0"),
        ("max_time", np.nan, r"max_time must be a number in \(0, inf\), got nan"),
        ("max_time", np.inf, r"max_time must be a number in \(0, inf\), got inf"),
        ("max_time", "60", r"max_time must be a number in \(0, inf\), got '60'"),
        ("batch_size", 0, "batch_size must be an integer >= 1, got 0"),
        ("batch_size", 32.0, "batch_size must be an integer >= 1, got 32.0"),
        ("learning_rate", 0.0, r"learning_rate must be a number in \(0, inf\), got 0.0"),
        ("learning_rate", -0.1, r"learning_rate must be a number in \(0, inf\), got -0.1"),
        ("learning_rate", np.nan, r"learning_rate must be a number in \(0, inf\), got nan"),
        ("learning_rate", np.inf, r"learning_rate must be a number in \(0, inf\), got inf"),
        ("learning_rate", "fast", r"learning_rate must be a number in \(0, inf\), got 'fast'"),
        ("n_steps", 0, "n_steps must be an integer >= 1, got 0"),
        ("n_steps", 1.5, "n_steps must be an integer >= 1, got 1.5"),
        ("masked_share", 1.5, r"masked_share must be a number in \[0, 1\], got 1.5"),
        ("masked_share", -0.1, r"masked_share must be a number in \[0, 1\], got -0.1"),
        ("masked_share", None, r"masked_share must be a number in \[0, 1\], got None"),
        ("categorical_features", "all", r"categorical_features='all'; expected 'auto', None, or a list"),
        ("categorical_features", [7], "categorical_features holds 7, but X has columns 0 to 2"),
        ("condition_dropout", 1.0, r"condition_dropout must be a number in \[0, 1\), got 1.0"),
        ("condition_dropout", -0.1, r"condition_dropout must be a number in \[0, 1\), got -0.1"),
        ("condition_dropout", None, r"condition_dropout must be a number in \[0, 1\), got None"),
        ("guidance_scale", np.nan, "guidance_scale must be a number in .*, got nan"),
        ("guidance_scale", -np.inf, "guidance_scale must be a number in .*, got -inf"),
        ("guidance_scale", "strong", "guidance_scale must be a number in .*, got 'strong'"),
        ("guidance_scale", 2.0, "guidance_scale=2 needs conditions, but the model has none"),
        ("random_state", -1, "random_state must be in"),
        ("random_state", "seed", "random_state must be None, an integer"),
        ("random_state", 1.0, "random_state must be None, an integer"),
        ("device", "toaster", "device 'toaster' is not available"),
        ("device", "cuda:99", "device 'cuda:99' is not available"),
        ("device", ["cpu"], r"device \['cpu'\] is not available"),
        ("device", "meta", "device 'meta' is not available"),
    ],
    ids=lambda value: str(value).partition(" at 0x")[0][:40],
)
def test_parameters_out_of_range_are_refused(name, value, message, plain, refuses):
    refuses(plain, lambda model: model.fit(table()), message, **{name: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has the device")
@pytest.mark.parametrize("device", ["cuda", torch.device("cuda")])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match=r"device .*cuda.* is not available .*Use 'auto' or 'cpu'"):
        generator(device=device).fit(table())


def test_guidance_without_dropout_is_refused():
    with pytest.raises(ValueError, match="guidance_scale=2 needs a model that also learned the unconditional"):
        generator(guidance_scale=2.0, condition_dropout=0.0).fit(table(), LABELS)


@pytest.mark.parametrize("where", ["file", "file/inside"])
def test_a_checkpoint_folder_that_cannot_be_made_is_refused(where, tmp_path, plain, refuses):
    (tmp_path / "file").write_text("text")

    options = TrainingOptions(checkpoint_folder=tmp_path / where)
    message = rf"checkpoint_folder .*{where}.* cannot be made"
    refuses(plain, lambda model: model.fit(table()), message, training=options)


def test_a_path_that_cannot_be_written_is_refused(plain, tmp_path, refuses):
    refuses(plain, lambda model: model.save(tmp_path / "no" / "folder" / "model"), "cannot write to .*no/folder/model")


# -- sampling and codes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, 2.5, True, "3", [3]], ids=repr)
def test_a_number_of_samples_that_is_none_is_refused(n_samples, plain, refuses):
    refuses(plain, lambda model: model.sample(n_samples), r"n_samples must be an integer >= 1, got")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"n_steps": 2.0}, "n_steps must be an integer >= 1, got 2.0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"solver": "simpson"}, "unknown solver 'simpson'. Choose one of 'auto', 'flow_map', 'euler'"),
        ({"guidance_scale": np.nan}, "guidance_scale must be a number"),
        ({"guidance_scale": "strong"}, "guidance_scale must be a number"),
        ({"guidance_scale": 2.0}, "needs conditions"),
        ({"random_state": "seed"}, "random_state must be None"),
    ],
)
def test_options_of_sample_out_of_range_are_refused(options, message, plain, refuses):
    refuses(plain, lambda model: model.sample(3, **options), message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"n_probes": 0}, "n_probes must be an integer >= 1, got 0"),
        ({"n_probes": 1.5}, "n_probes must be an integer >= 1, got 1.5"),
        ({"solver": "simpson"}, "unknown solver 'simpson'. Choose one of 'auto', 'flow_map', 'euler'"),
    ],
)
def test_options_of_score_samples_out_of_range_are_refused(options, message, plain, refuses):
    refuses(plain, lambda model: model.score_samples(table(), **options), message)


@pytest.mark.parametrize(
    "Z",
    [np.zeros(3), np.zeros((4, 2)), np.zeros((4, 4)), np.zeros((4, 3, 1)), np.full((4, 3), np.inf), np.zeros((0, 3)), 0.0,
     np.full((4, 3), "a"), np.full((4, 3), 1j)],
    ids=["1d", "fewer", "more", "3d", "infinity", "empty", "scalar", "text", "complex"],
)  # fmt: skip
def test_codes_of_a_wrong_shape_or_kind_are_refused(Z, plain, refuses):
    refuses(plain, lambda model: model.decode(Z), r"Z must hold finite numbers of shape \(n_samples, 3\)")


def test_codes_without_a_number_are_refused_by_models_that_do_not_know_missing_cells(refuses):
    model = generator(masked_share=0.0).fit(table())
    refuses(model, lambda model: model.decode(np.full((4, 3), np.nan)), "it contains NaN or infinity")


def test_a_column_that_was_constant_has_no_code(refuses):
    X = table()
    X[:, 1] = 5.0
    model = generator().fit(X)
    assert model.encode(X[:4]).shape == (4, 2)
    refuses(model, lambda model: model.decode(np.zeros((4, 3))), "Z must hold")


# -- odd, but right -------------------------------------------------------------------------------------------------------


def assert_works(model, X, y=None):
    """Samples have the rows' form and finite values inside their range; scores of rows are numbers."""
    drawn = model.sample(5, random_state=0)
    values, original = np.asarray(drawn, dtype=float), np.asarray(X, dtype=float)
    assert type(drawn) is type(X)
    assert values.shape == (5, *original.shape[1:])
    assert np.isfinite(values).all()
    slack = 1e-6 * np.abs(original).max(axis=0)
    assert (values >= original.min(axis=0) - slack).all()
    assert (values <= original.max(axis=0) + slack).all()
    scores = model.score_samples(X[:3], None if y is None else y[:3])
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


def column(values):
    return lambda: np.column_stack([table()[:, 0], values])


ODD_TABLES = {
    "one_constant_column": column(np.full(N, 0.1)),
    "duplicated_rows": lambda: np.repeat(table(20), 3, axis=0),
    "one_column": lambda: table()[:, :1],
    "one_binary_column": lambda: table()[:, 2:],
    "bool_array": lambda: np.random.default_rng(0).uniform(size=(N, 3)) < 0.4,
    "bool_frame": lambda: frame()[["flag"]].assign(other=np.arange(N) % 3 == 0),
    "tensor": lambda: torch.as_tensor(table(), dtype=torch.float32),
    "integer_tensor": lambda: torch.as_tensor(table()).long(),
    "tensor_with_gradient": lambda: torch.as_tensor(table()).requires_grad_(),
    "integer_column_names": lambda: pd.DataFrame(table(), columns=[3, 1, 2]),
    "double_column_names": lambda: pd.DataFrame(table(), columns=["a", "a", "b"]),
    "tiny": lambda: table() * 1e-12,
    "huge": lambda: table() * 1e12,
    "float32_limit": lambda: table() * 1e37,
    "tiny_beside_huge": lambda: np.column_stack([table()[:, 0] * 1e-12, table()[:, 0] * 1e12]),
    "far_from_zero": lambda: table()[:, :1] + 1e9,
    "nullable_frame": lambda: frame().convert_dtypes(),
    "objects": lambda: table().astype(object),
    "object_frame": lambda: frame().astype(object),
    "read_only": lambda: np.lib.stride_tricks.as_strided(table(), writeable=False),
    "fortran_order": lambda: np.asfortranarray(table()),
    "odd_index": lambda: frame().set_index(pd.Index(np.arange(N)[::-1] * 10)),
}


@pytest.mark.parametrize("what", ODD_TABLES)
def test_odd_tables_work(what):
    X = ODD_TABLES[what]()
    assert_works(generator().fit(X), X if not isinstance(X, torch.Tensor) else X.detach())


@pytest.mark.parametrize("preprocessing", ["quantile", "standardize", "minmax", "none"])
@pytest.mark.parametrize(
    "X", [np.full((N, 3), 0.1), pd.DataFrame({"a": [1] * N, "b": [2.5] * N})], ids=["array", "frame"]
)
def test_a_table_of_constants_works_and_warns(X, preprocessing):
    with pytest.warns(UserWarning, match="all rows of X are equal"):
        model = generator(preprocessing=preprocessing).fit(X)
    drawn = model.sample(4, random_state=0)
    assert type(drawn) is type(X)
    if preprocessing != "none":
        np.testing.assert_allclose(np.asarray(drawn)[:, 1], np.asarray(X)[:4, 1])


def test_constant_columns_come_back_exactly():
    X = np.column_stack([np.full(N, 0.1), table()[:, 0], np.full(N, -7e20)])
    drawn = generator().fit(X).sample(6, random_state=0)
    np.testing.assert_array_equal(drawn[:, [0, 2]], X[:6, [0, 2]])


def test_two_equal_rows_of_constants_work():
    with pytest.warns(UserWarning, match="all rows of X are equal"):
        model = generator().fit(np.ones((2, 2)))
    np.testing.assert_array_equal(model.sample(3), np.ones((3, 2)))


def test_twenty_rows_work_and_warn():
    with pytest.warns(UserWarning, match="X has 20 rows: too few"):
        model = generator().fit(table(20))
    assert_works(model, table(20))


def test_fifty_rows_work_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator().fit(table(50), np.repeat([0, 1], 25))


def test_five_classes_of_one_row_work_and_warn():
    y = np.array([0] * (N - 5) + [1, 2, 3, 4, 5])
    with pytest.warns(UserWarning, match=r"5 of 6 classes have a single row \(such as .*1.*\)"):
        model = generator().fit(table(), y)
    np.testing.assert_array_equal(model.classes_, np.arange(6))
    assert_works(model, table(), y)
    assert model.sample(3, y=5, random_state=0).shape == (3, 3)


def test_ten_thousand_columns_work():
    X = np.random.default_rng(0).normal(size=(10, 10_000))
    drawn = generator(max_iter=2).fit(X).sample(2, random_state=0)
    assert drawn.shape == (2, 10_000)
    assert np.isfinite(drawn).all()


def test_a_single_class_works():
    y = np.full(N, "only")
    model = generator().fit(table(), y)
    assert model.sample(2, return_y=True)[1].tolist() == ["only", "only"]
    assert_works(model, table(), y)


@pytest.mark.parametrize("y", [None, LABELS, pd.Series(LABELS, index=range(100, 100 + N)), LABELS.tolist(), AMOUNTS, torch.arange(N) % 3],
                         ids=["none", "array", "series", "list", "numbers", "torch"])  # fmt: skip
def test_rows_of_weight_zero_are_left_out(y):
    X, kept = table(), np.arange(N) % 4 != 0
    weight = np.where(kept, 2.0, 0.0)
    X[~kept] = 1e6  # would be seen in the range
    model = generator().fit(X, y, sample_weight=weight)
    assert model.sample(30, random_state=0).max() < 1e6
    without = generator().fit(
        X[kept], y if y is None else type(y)(np.asarray(y)[kept].tolist()) if isinstance(y, list) else y[kept]
    )
    drawn, expected = (one.sample(30, random_state=0, return_y=True) for one in (model, without))
    np.testing.assert_array_equal(drawn[0], expected[0])
    assert type(drawn[1]) is type(expected[1])
    np.testing.assert_array_equal(np.asarray(drawn[1]), np.asarray(expected[1]))


@pytest.mark.parametrize("factor", [3, 1e-300, 8e307])
def test_weights_count_relative_to_each_other(factor):
    weight = np.random.default_rng(0).integers(0, 3, N).astype(float)
    first, other = (
        generator().fit(table(), sample_weight=w).sample(9, random_state=0) for w in (weight, weight * factor)
    )
    np.testing.assert_allclose(first, other, rtol=1e-6)


@pytest.mark.parametrize(
    "weight",
    [[1] * N, pd.Series(np.ones(N)), torch.ones(N), np.ones(N, dtype=int)],
    ids=["list", "series", "torch", "int"],
)
def test_weights_come_in_any_container(weight):
    weighted = generator().fit(table(), sample_weight=weight)
    np.testing.assert_array_equal(
        weighted.sample(9, random_state=0), generator().fit(table()).sample(9, random_state=0)
    )
