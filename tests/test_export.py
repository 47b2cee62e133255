"""Exported samplers give, without flowmatch, what the estimator gives for the same noise."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

import flowmatch
from flowmatch import FlowMatchingGenerator, model, preprocessing
from flowmatch.export import describe_sampler, files, sampler_of
from flowmatch.export.conditions import condition_input
from flowmatch.export.decoding import Decoder
from flowmatch.metrics import energy_distance
from flowmatch.networks import MLP, Transformer, UNet

N = 400
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(
    {
        "length": RNG.gamma(2.0, size=N),
        "price": np.round(RNG.gamma(3.0, 10.0, N), 2),
        "grade": RNG.choice([1, 2, 5], N),
        "constant": 7,
        "count": RNG.poisson(40, N),
        "yes": RNG.random(N) < 0.3,
    }
)
LABELS = RNG.choice(["red", "green", "blue"], N)
NAMES = ["blue", "green", "red"]
MIXED = pd.DataFrame({"sex": RNG.choice(["f", "m"], N), "age": RNG.normal(40, 9, N), "ward": RNG.choice([3, 8], N)})
MIXED["ward"] = MIXED["ward"].astype("category")
IMAGES = RNG.choice([0, 80, 160, 255], (60, 3, 6, 5)).astype(np.uint8)
IMAGES[:, 1] = 17
SIGNALS = RNG.normal(3.0, 2.0, (60, 2, 20))


@pytest.fixture(autouse=True)
def _no_traces():
    """What torch tells of every step of a capture costs pytest more time than the capture."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def fitted(X, y=None, **parameters):
    """A generator whose weights are far from those it started with, so that everything about it matters."""
    parameters = {"network": MLP(width=8), "n_steps": 1, "solver": "midpoint", "random_state": 0, **parameters}
    generator = FlowMatchingGenerator(max_iter=2, **parameters).fit(X, y)
    return shaken(generator)


def shaken(generator):
    noise = torch.Generator().manual_seed(0)
    for p in generator.network_.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=noise))
    return generator


def noise_for(generator, n=7):
    return torch.randn(n, *generator.model_.code_shape, generator=torch.Generator().manual_seed(1))


def integration_of(generator, **call):
    """How the estimator draws samples."""
    own = generator.solver, generator.n_steps, generator.guidance_scale
    return model.sampling_steps(generator.model_, own, **call)


def sampler(generator, **call):
    return sampler_of(generator.model_, integration_of(generator, **call))


def sampled(generator, noise, y=None):
    """What the estimator makes of the noise."""
    condition = model.condition_pieces(generator.model_, y, len(noise))(slice(0, len(noise)))
    return restored(
        generator.model_.encoder, model.carry(generator.model_, noise, condition, integration_of(generator))
    )


def restored(encoder, codes):
    X = encoder.container.wrap(encoder.restore(codes.double().numpy()))
    return np.asarray(X, dtype=np.float64)


def encoder_of(X, transform):
    rows = preprocessing.SampleRows(X.to_numpy(np.float64) if isinstance(X, pd.DataFrame) else X)
    return preprocessing.SampleEncoder.fit(rows, preprocessing.Container.of(X), transform, None)


def assert_equal_up_to_float32(found, expected, exact=(), rare=2e-3):
    """Equal to 1e-5 of a column's size; jumps of tables come an ulp early or late, so few numbers may be others."""
    found, expected = np.asarray(found, dtype=np.float64), np.asarray(expected)
    assert found.shape == expected.shape
    size = np.abs(expected).max(axis=tuple(i for i in range(expected.ndim) if i != 1), keepdims=True)
    close = np.abs(found - expected) <= 1e-5 * size
    assert close.mean() >= 1 - rare, f"{1 - close.mean():.3%} differ, by up to {np.abs(found - expected).max():g}"
    for j in exact:
        assert set(np.unique(found[:, j])) <= set(np.unique(expected[:, j]))


# -- from codes to data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", preprocessing.TRANSFORMS)
def test_columns_of_a_table_are_decoded_as_by_the_estimator(name):
    encoder = encoder_of(TABLE, preprocessing.TRANSFORMS[name]())
    codes = 1.5 * torch.randn(5000, 5, generator=torch.Generator().manual_seed(0))
    found = Decoder(encoder)(codes)
    assert found.dtype == torch.float32
    assert_equal_up_to_float32(found, restored(encoder, codes), exact=[2, 3, 4, 5])
    assert (found[:, 3] == 7).all()
    if name == "quantile":
        cents = found[:, 1].double() * 100
        assert (cents - cents.round()).abs().max() < 1e-3
        assert 0 < len(found[:, 2].unique()) <= 3


@pytest.mark.parametrize("name", ["standardize", "quantile", "minmax", "none"])
def test_images_come_back_on_their_grey_levels(name):
    encoder = encoder_of(IMAGES, preprocessing.TRANSFORMS[name]())
    scale, shift = (100.0, 100.0) if name == "none" else (1.5, 0.0)
    codes = scale * torch.randn(50, 3, 6, 5, generator=torch.Generator().manual_seed(0)) + shift
    found = Decoder(encoder)(codes)
    assert_equal_up_to_float32(found, restored(encoder, codes))
    assert set(found.unique().tolist()) == {0.0, 17.0, 80.0, 160.0, 255.0}


def test_signals_stay_within_the_limits_of_each_channel():
    encoder = encoder_of(SIGNALS, preprocessing.Standardize())
    codes = 3 * torch.randn(50, 2, 20, generator=torch.Generator().manual_seed(0))
    found = Decoder(encoder)(codes)
    assert_equal_up_to_float32(found, restored(encoder, codes), rare=0.0)
    np.testing.assert_allclose(found.amax((0, 2)), encoder.limits[1], rtol=1e-6)


def test_whole_numbers_stay_in_the_range_of_their_dtype():
    encoder = encoder_of(np.arange(256, dtype=np.uint8)[:, None], preprocessing.Standardize())
    codes = torch.linspace(-3, 3, 1001)[:, None]
    found = Decoder(encoder)(codes)
    assert_equal_up_to_float32(found, restored(encoder, codes))
    assert (found.min(), found.max()) == (0, 255)


@pytest.mark.parametrize("X", [np.zeros((40, 2)), np.ones((40, 1, 3))])
@pytest.mark.parametrize("name", preprocessing.TRANSFORMS)
def test_data_of_a_single_value_come_back_as_that_value(X, name):
    encoder = encoder_of(X, preprocessing.TRANSFORMS[name]())
    codes = torch.randn(5, *encoder.code_shape, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(Decoder(encoder)(codes), restored(encoder, codes), atol=1e-6)


def test_rare_values_and_thinned_columns_keep_their_distribution_function():
    skewed = np.concatenate([np.zeros(3000), RNG.exponential(size=7000)])[:, None]
    encoder = encoder_of(skewed, preprocessing.QuantileNormal(max_knots=50))
    codes = torch.linspace(-4, 4, 20001)[:, None]
    assert_equal_up_to_float32(Decoder(encoder)(codes), restored(encoder, codes), rare=0.0)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (1_700_000_000 + np.arange(N), torch.float64),  # time stamps
        (np.repeat([123_456_789, 123_456_790], N // 2), torch.float64),  # long codes
        (1e6 + RNG.normal(size=N), torch.float64),
        (np.float32(1e6) + RNG.normal(size=N).astype(np.float32), torch.float32),
        (RNG.normal(size=N), torch.float32),
        (np.arange(N) * 1000, torch.float32),
    ],
)
@pytest.mark.parametrize("name", ["quantile", "standardize"])
def test_samples_are_float64_where_float32_would_merge_values(column, dtype, name):
    encoder = encoder_of(column[:, None], preprocessing.TRANSFORMS[name]())
    decoder, codes = Decoder(encoder), torch.linspace(-2, 2, 1001)[:, None]
    found = decoder(codes)
    assert found.dtype == decoder.dtype == dtype
    expected = restored(encoder, codes)
    # codes are float32, so values are known to 1e-6 of their spread, and whole ones to the next
    tolerance = 1e-5 * np.ptp(column) + (1 if column.dtype.kind == "i" else 0) + 1e-7 * (found.dtype == torch.float32)
    tolerance += np.abs(column).max() * 2.0**-23 if dtype == torch.float32 else 0.0
    assert np.abs(found.numpy() - expected).max() <= tolerance


def test_a_transform_of_the_users_own_is_refused_by_name(tmp_path):
    class Halved(preprocessing.Identity):
        def inverse_transform(self, Z):
            return 0.5 * Z

    with pytest.raises(ValueError, match="Halved, whose way back"):
        fitted(SIGNALS[:, 0], preprocessing=Halved()).export(tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


# -- from conditions to vectors -----------------------------------------------------------------------------------


def coded(y):
    return np.column_stack([y["sex"] == "m", y["age"], y["ward"].cat.codes]).astype(np.float32)


@pytest.mark.parametrize(
    ("y", "stated"),
    [
        (LABELS, np.searchsorted(NAMES, LABELS)),
        (RNG.normal(50, 3, N), None),
        (RNG.normal(50, 3, (N, 2)), None),
        (MIXED, coded(MIXED)),
        (SIGNALS, None),
    ],
)
def test_conditions_become_the_vectors_of_the_encoder(y, stated):
    encoder = preprocessing.fit_conditions(y, None, SIGNALS.shape[1:])
    module = condition_input(encoder)
    stated = y.reshape(len(y), *module.shape) if stated is None else stated
    found = module(torch.as_tensor(stated).to(module.dtype))
    np.testing.assert_allclose(found, encoder.encode(y, len(y)), atol=2e-6)
    assert module(module.example(2)).shape == (2, encoder.size)


def test_a_class_number_out_of_range_is_refused():
    module = condition_input(preprocessing.fit_conditions(LABELS, None))
    with pytest.raises((IndexError, RuntimeError)):
        module(torch.tensor([3]))


# -- the whole way, before it is written --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("solver", "scale", "n_steps"),
    [("euler", 1.0, 3), ("midpoint", 2.0, 1), ("heun", 0.0, 1), ("rk4", 1.5, 2), ("ab2", 1.0, 3)],
)
def test_a_sampler_makes_of_noise_what_the_estimator_makes(solver, scale, n_steps):
    generator = fitted(TABLE, LABELS, solver=solver, guidance_scale=scale, n_steps=n_steps, path="vp")
    noise, classes = noise_for(generator, 200), torch.arange(200) % 3
    found = sampler(generator)(noise, classes)
    assert_equal_up_to_float32(found, sampled(generator, noise, np.array(NAMES)[classes]), rare=0.01)


@pytest.mark.parametrize(("solver", "n_steps"), [("flow_map", 1), ("flow_map", 3), ("euler", 2)])
def test_flow_maps_are_followed_by_their_jumps_or_their_velocity(solver, n_steps):
    generator = fitted(
        TABLE, LABELS, objective="mean_flow", guidance_scale=3.0, solver=solver, n_steps=n_steps, batch_size=64
    )
    noise, classes = noise_for(generator, 200), torch.arange(200) % 3
    found = sampler(generator)(noise, classes)
    assert_equal_up_to_float32(found, sampled(generator, noise, np.array(NAMES)[classes]), rare=0.01)


def test_steps_are_those_asked_for():
    generator = fitted(TABLE)
    noise = noise_for(generator, 200)
    found = sampler(generator, n_steps=4)(noise)
    assert_equal_up_to_float32(found, sampled(generator.set_params(n_steps=4), noise), rare=0.01)


# -- programs for PyTorch -----------------------------------------------------------------------------------------

ALONE = """
import json, sys
sys.modules["flowmatch"] = None  # an import of it fails
import numpy as np, torch
folder = sys.argv[1]
about = {"flowmatch.json": ""}
program = torch.export.load(folder + "/sampler.pt2", extra_files=about).module()
given = np.load(folder + "/given.npz")
noise, classes = torch.tensor(given["noise"]), torch.tensor(given["classes"])
every = program(noise, classes)
single = program(noise[:1], classes[:1])
np.savez(folder + "/result.npz", every=every.numpy(), single=single.numpy())
print(about["flowmatch.json"])
"""


@pytest.mark.slow
def test_a_program_runs_without_flowmatch(tmp_path):
    generator = fitted(TABLE, LABELS, guidance_scale=2.0, solver="euler")
    noise, classes = noise_for(generator, 100), torch.arange(100) % 3
    before = {name: value.clone() for name, value in generator.network_.state_dict().items()}
    generator.export(tmp_path / "sampler.pt2")
    for name, value in generator.network_.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert [path.name for path in tmp_path.iterdir()] == ["sampler.pt2"]

    np.savez(tmp_path / "given.npz", noise=noise, classes=classes)
    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    result = np.load(tmp_path / "result.npz")
    assert_equal_up_to_float32(result["every"], sampled(generator, noise, np.array(NAMES)[classes]), rare=0.01)
    np.testing.assert_allclose(result["single"], result["every"][:1], rtol=1e-5)

    about = json.loads(done.stdout)
    assert [entry["name"] for entry in about["inputs"]] == ["noise", "condition"]
    assert about["inputs"][0]["shape"] == ["batch", 5]
    assert about["outputs"][0]["columns"] == list(TABLE.columns)
    assert (about["classes"], about["n_steps"], about["guidance_scale"]) == (NAMES, 1, 2.0)
    assert about["versions"]["flowmatch"] == flowmatch.__version__


def test_a_sampler_tells_how_to_draw_its_noise():
    generator = fitted(SIGNALS[:, 0, :3], source="matched", preprocessing="none", objective="mean_flow", solver="auto")
    told = describe_sampler(generator.model_, sampler(generator))
    np.testing.assert_allclose(told["inputs"][0]["scale"], SIGNALS[:, 0, :3].std(0), rtol=1e-5)
    assert (told["inputs"][0]["distribution"], told["solver"]) == ("MatchedSource()", "flow_map")


# -- ONNX ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def onnxruntime():
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    return pytest.importorskip("onnxruntime")


def run(onnxruntime, path, noise, condition=None):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {"noise": noise.numpy()} | ({} if condition is None else {"condition": np.asarray(condition)})
    return session.run(["sample"], feed)[0]


ANGLES, RADII = RNG.uniform(0, 2 * np.pi, 1000), RNG.uniform(1, 3, (1000, 1))
RINGS = RADII * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
WIDE = MLP(width=256, depth=1)


@pytest.fixture(scope="module")
def rings(onnxruntime, tmp_path_factory):
    """A flow map of rings, given their radius, and its exported model."""
    parameters = {"objective": "mean_flow", "guidance_scale": 1.0, "random_state": 0}
    generator = FlowMatchingGenerator(WIDE, max_iter=60, **parameters).fit(RINGS, RADII)
    path = tmp_path_factory.mktemp("rings") / "sampler.onnx"
    logging.disable(logging.WARNING)
    generator.export(path)
    return generator, path


@pytest.mark.slow
def test_an_onnx_model_gives_the_samples_of_the_estimator(onnxruntime, rings):
    generator, path = rings
    noise, radii = noise_for(generator, 100), RADII[:100].astype(np.float32)
    expected = sampled(generator, noise, radii)
    assert expected.std() > 0.5
    assert_equal_up_to_float32(run(onnxruntime, path, noise, radii), expected, rare=0.0)
    assert_equal_up_to_float32(run(onnxruntime, path, noise[:1], radii[:1]), expected[:1], rare=0.0)

    session = onnxruntime.InferenceSession(str(path))
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("noise", ["batch", 2]), ("condition", ["batch", 1])]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("sample", ["batch", 2])]
    about = json.loads(session.get_modelmeta().custom_metadata_map["flowmatch"])
    assert (about["n_steps"], about["solver"], about["inputs"][1]["kind"]) == (1, "flow_map", "numbers")
    assert [entry.name for entry in path.parent.iterdir()] == ["sampler.onnx"]
    assert str(Path(flowmatch.__file__).parent).encode() not in path.read_bytes()


def assert_same_law(generator, found, conditions):
    """Samples of the estimator's own, under other noise, are no nearer to each other than to those found."""
    others = []
    for seed in range(2, 11):
        noise = torch.randn(len(conditions), 2, generator=torch.Generator().manual_seed(seed))
        others.append(sampled(generator, noise, conditions))
    between = [energy_distance(others[0], other) for other in others[1:]]
    assert energy_distance(others[0], found) < max(between) + 0.5 * np.ptp(between)


@pytest.mark.slow
def test_int8_weights_halve_the_file_and_keep_the_law(onnxruntime, rings, tmp_path):
    import onnx

    generator, path = rings
    small = tmp_path / "int8.onnx"
    small.write_bytes(files._quantized(onnx.load(path)).SerializeToString())
    assert small.stat().st_size < 0.5 * path.stat().st_size
    noise, radii = noise_for(generator, len(RADII)), RADII.astype(np.float32)
    found, expected = run(onnxruntime, small, noise, radii), sampled(generator, noise, radii)
    assert 0 < np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()
    assert_same_law(generator, found, radii)


@pytest.mark.slow
def test_int8_holds_for_weights_that_several_steps_share(onnxruntime, tmp_path):
    generator = FlowMatchingGenerator(WIDE, max_iter=150, solver="euler", n_steps=3, random_state=0).fit(RINGS, RADII)
    generator.export(tmp_path / "float.onnx")
    generator.export(tmp_path / "int8.onnx", quantize="int8")
    small, large = ((tmp_path / name).stat().st_size for name in ("int8.onnx", "float.onnx"))
    assert small < 0.5 * large
    radii = RADII.astype(np.float32)
    assert_same_law(generator, run(onnxruntime, tmp_path / "int8.onnx", noise_for(generator, 1000), radii), radii)


def test_missing_packages_are_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r'onnxscript: pip install "flowmatch\[onnx\]"'):
        fitted(TABLE).export(tmp_path / "x.onnx")


# -- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "pickle"}, "unknown format 'pickle'"),
        ({"quantize": "int4", "path": "x.onnx"}, "unknown quantize 'int4'"),
        ({"format": "onnx"}, "format='onnx', but the name 'x.pt2' ends as one of format='torch_export'"),
        ({"format": "torch_export", "path": "x.ONNX"}, "format='torch_export', but the name 'x.ONNX' ends as one of"),
        ({"quantize": "int8"}, "quantize='int8' needs format='onnx'"),
        ({"n_steps": 0}, "n_steps must be an integer >= 1, got 0"),
        ({"path": "missing/x.pt2"}, "there is no folder"),
        ({"path": "."}, "is a folder"),
        ({"solver": "dopri5"}, "solver='dopri5' chooses its steps while it runs"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(arguments, message, tmp_path):
    solver = arguments.pop("solver", "euler")
    generator = fitted(TABLE).set_params(solver=solver, n_steps=None if solver == "dopri5" else 1)
    path = tmp_path / arguments.pop("path", "x.pt2")
    with pytest.raises(ValueError, match=message):
        generator.export(path, **arguments)
    assert not list(tmp_path.iterdir())


def test_the_name_of_the_file_says_the_format(tmp_path, monkeypatch):
    for format in ("program", "onnx"):
        monkeypatch.setattr(files, f"_{format}_file", lambda *_, format=format: format.encode())
    monkeypatch.setattr(files, "_capture", lambda *arguments: None)
    generator = fitted(TABLE)
    for name, options, expected in (
        ("a.pt2", {}, b"program"),
        ("b", {}, b"program"),
        ("c.onnx", {}, b"onnx"),
        ("d.Onnx", {"format": "onnx"}, b"onnx"),
        ("e.model", {"format": "onnx"}, b"onnx"),
    ):
        generator.export(tmp_path / name, **options)
        assert (tmp_path / name).read_bytes() == expected


def test_an_unfitted_estimator_is_refused(tmp_path):
    with pytest.raises(NotFittedError):
        FlowMatchingGenerator().export(tmp_path / "x.pt2")


@pytest.mark.parametrize("place", ["flowmatch.export.files._program_file", "os.replace"])
def test_a_failed_export_leaves_the_older_file_as_it_was(place, tmp_path, monkeypatch):
    path = tmp_path / "x.pt2"
    path.write_bytes(b"older")

    def fail(*arguments):
        raise OSError("no room")

    monkeypatch.setattr(files, "_capture", lambda *arguments: None)
    monkeypatch.setattr(files, "_program_file", lambda *arguments: b"newer")
    monkeypatch.setattr(place, fail)
    with pytest.raises((OSError, ValueError), match="no room"):
        fitted(TABLE).export(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt2"]
    assert path.read_bytes() == b"older"


# -- networks -----------------------------------------------------------------------------------------------------

SMALL_UNET = {"width": 8, "multipliers": (1, 2)}
SMALL_TRANSFORMER = {"width": 8, "depth": 1, "n_heads": 2, "patch_size": 4}


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch_export", "onnx"])
@pytest.mark.parametrize(
    ("X", "y", "stated", "network"),
    [
        (TABLE, LABELS, np.searchsorted(NAMES, LABELS), MLP(width=8)),
        (TABLE, None, None, MLP(width=8, conditioning="adaln")),
        (TABLE, MIXED, coded(MIXED), MLP(width=8, conditioning="concat")),
        (SIGNALS, None, None, UNet(**SMALL_UNET)),
        (SIGNALS, SIGNALS[::-1].copy(), SIGNALS[::-1].astype(np.float32), UNet(**SMALL_UNET)),
        (IMAGES, LABELS[:60], np.searchsorted(NAMES, LABELS[:60]), UNet(**SMALL_UNET, boundary="periodic")),
        (RNG.normal(size=(40, 1, 6, 5, 4)), None, None, UNet(**SMALL_UNET, patch_size=2)),
        (SIGNALS, None, None, Transformer(**SMALL_TRANSFORMER)),
        (IMAGES, None, None, Transformer(**SMALL_TRANSFORMER)),
    ],
)
def test_every_network_can_be_exported(X, y, stated, network, format, tmp_path, request):
    generator = fitted(X, y, network=network, solver="euler")
    noise, path = noise_for(generator, 20), tmp_path / ("sampler.onnx" if format == "onnx" else "sampler.pt2")
    n = slice(0, len(noise))
    expected = sampled(generator, noise, None if y is None else y[n])
    generator.export(path, format=format)
    condition = None if stated is None else stated[n]
    if format == "onnx":
        found = run(request.getfixturevalue("onnxruntime"), path, noise, condition)
    else:
        arguments = [] if condition is None else [torch.tensor(condition.copy())]
        program = torch.export.load(path).module()
        found = program(noise, *arguments)
        torch.testing.assert_close(program(noise[:1], *[a[:1] for a in arguments]), found[:1], rtol=1e-4, atol=1e-4)
    assert_equal_up_to_float32(found, expected, rare=0.02)
