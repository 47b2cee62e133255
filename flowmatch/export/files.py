"""Writing a sampler as a program for PyTorch, or as an ONNX model."""

from __future__ import annotations

import inspect
import io
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flowmatch.core.checks import check_choice
from flowmatch.core.files import replace_file
from flowmatch.export.forecasts import ForecastForm, ForecastSampler
from flowmatch.export.sampler import Sampler, describe_sampler, sampler_of
from flowmatch.model import FlowModel, Integration

FORMATS = {"torch_export": ".pt2", "onnx": ".onnx"}
"""What names of files end in."""

QUANTIZATIONS = ("int8",)

METADATA_KEY = "flowmatch"
"""Of the JSON text in an ONNX model's properties; in a program it is the extra file ``flowmatch.json``."""

_EXAMPLE_ROWS = 3  # programs traced on one row would hold for one row


def export(
    model: FlowModel,
    path: str | os.PathLike[str],
    integration: Integration,
    *,
    format: str | None = None,
    quantize: str | None = None,
) -> None:
    """Write a sampler to a file that runs without flowmatch.

    The file holds everything from noise to samples in the data's own units: the steps of the flow, guidance, the way
    back from the flow's scale, columns that were constant, the values and limits of discrete columns.

    Inputs are ``noise``, float32 of shape (batch, *code_shape), drawn from the model's source (a standard normal
    by default; `code_shape` is the sample's shape, without the constant columns of a table), and for conditional models
    ``condition``:

    - labels: int64 of shape (batch,), positions in ``classes_``;
    - numbers: float32 of shape (batch, k), in the units of `y`;
    - numbers and labels: float32 of shape (batch, k), labels by their position;
    - grids: float32 of shape (batch, channels, *grid), in the units of `y`.

    The output ``sample`` is (batch, *sample_shape): float32, or float64 where float32 could not tell the values of the
    data apart. Categories are positions in ``levels``, dates count ``units`` from ``origins``; rows are whole, also
    where training rows miss entries. The batch may have any size. Shapes, names of classes and columns, steps and
    versions stand as JSON in the file: among an ONNX model's properties under "flowmatch", in a program's extra file
    "flowmatch.json".

    Parameters
    ----------
    model : FlowModel
        It stays as it is, on whatever device.
    path : path-like
        Where to write. What stood there before is replaced only by a whole file.
    integration : Integration
        Solver, steps and guidance. Every step is written out: exporting takes seconds for each evaluation of the
        network, and flow maps of few steps make the smallest files.
    format : {"torch_export", "onnx"} or None, default=None
        "torch_export" writes a program for ``torch.export.load``, which wants names that end in ``.pt2``; "onnx" a
        model for onnxruntime and others, which needs the packages of ``flowmatch[onnx]``. None takes "onnx" for names
        that end in ``.onnx``, and "torch_export" for all others.
    quantize : {None, "int8"}, default=None
        "int8" stores the weights of matrix products in 8 bits (ONNX only), a quarter of their size; convolutions stay
        as they are. What these products read is rounded to 256 values between the extremes of the batch, so a row's
        sample then depends a little on the others.

    Raises
    ------
    ValueError
        For bad parameters, a `format` that the path's ending contradicts, an adaptive solver, a folder that does not
        exist, or a path that cannot be written; nothing is written then.
    ImportError
        If a package that the format needs is missing.

    Examples
    --------
    >>> import numpy as np, os, tempfile, torch
    >>> from flowmatch import FlowMatchingGenerator
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> path = os.path.join(tempfile.mkdtemp(), "sampler.pt2")
    >>> FlowMatchingGenerator(max_iter=10, random_state=0).fit(X).export(path, n_steps=2)
    >>> torch.export.load(path).module()(torch.randn(5, 2)).shape
    torch.Size([5, 2])
    """

    def build() -> tuple[Sampler, dict[str, Any]]:
        sampler = sampler_of(model, integration)
        return sampler, describe_sampler(model, sampler)

    write_program(path, build, format, quantize)


def export_forecaster(
    model: FlowModel,
    path: str | os.PathLike[str],
    integration: Integration,
    form: ForecastForm,
    *,
    format: str | None = None,
    quantize: str | None = None,
) -> None:
    """Write a forecaster's draws to a file that runs without flowmatch.

    Inputs are ``noise`` as of `export`, one row for each draw, and ``context``, float64 of shape
    (batch, [n_lags,] *state), in the units of the data. Of tables with categories, dates and missing entries, entries
    are as in the output of `export`, and NaN where they are missing. Where there are any, ``known`` follows, what is
    known ahead, of shape (batch, horizon, n_known), and ``calendar``, (batch, n_cycles), the share of each cycle that
    has passed at the first instant that is forecast: of the year, its days with the part of the day that has passed,
    over 365 or 366; of the week from Monday; of the day. The output ``sample`` is (batch, *sample_shape) in the units
    of the data.

    Parameters
    ----------
    model : FlowModel
        Of a forecaster, or of its student.
    path : str or Path
        As of `export`; so are `format` and `quantize`.
    integration : Integration
        Solver and steps.
    form : ForecastForm
        What contexts and forecasts look like.
    format : str or None, default=None
        Of the file.
    quantize : str or None, default=None
        How weights are stored.

    Raises
    ------
    ValueError, ImportError
        As `export`, and where lags or targets of fields lacked values in training, or fields have conditions.
    """

    def build() -> tuple[Sampler, dict[str, Any]]:
        sampler = ForecastSampler(model, integration, form)
        return sampler, sampler.describe(model)

    write_program(path, build, format, quantize)


def write_program(
    path: str | os.PathLike[str],
    build: Callable[[], tuple[Sampler, dict[str, Any]]],
    format: str | None,
    quantize: str | None,
) -> None:
    """Write a sampler, and what it says of itself, once the arguments are checked."""
    path = _check_target(path)
    format = _format_of(path, format)
    if quantize is not None:
        check_choice("quantize", quantize, QUANTIZATIONS)
        if format != "onnx":
            raise ValueError(f"quantize={quantize!r} needs format='onnx', got format={format!r}.")
    if format == "onnx":
        _require_onnx()
    sampler, told = build()
    text, program = json.dumps({**told, "quantize": quantize}, default=str), _capture(sampler)
    is_program = format == "torch_export"
    content = _program_file(program, text) if is_program else _onnx_file(program, sampler.input_names, text, quantize)
    replace_file(path, content)


def _check_target(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"path is {str(path)!r}, but there is no folder {str(path.parent)!r}.")
    if path.is_dir():
        raise ValueError(f"path is {str(path)!r}, which is a folder; expected the name of a file.")
    return path


def _format_of(path: Path, format: str | None) -> str:
    """The format that is asked for, or that the path's ending says."""
    of_suffix = next((name for name, suffix in FORMATS.items() if suffix == path.suffix.lower()), None)
    if format is None:
        return of_suffix or "torch_export"
    check_choice("format", format, tuple(FORMATS))
    if of_suffix not in (None, format):
        raise ValueError(f"format={format!r}, but the name {path.name!r} ends as one of format={of_suffix!r} does.")
    return format


def _require_onnx() -> None:
    """Raise an ImportError that names what is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(f'format="onnx" needs {error.name}: pip install "flowmatch[onnx]".') from error
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        raise ImportError(f'format="onnx" needs torch 2.5 or later, but this is {torch.__version__}.')


def _capture(sampler: Sampler) -> Any:
    """The sampler as a program for batches of any size."""
    batch = {0: torch.export.Dim("batch")}
    examples = sampler.examples(_EXAMPLE_ROWS)
    arguments: list[Any] = []
    for value in examples.values():
        arguments.extend(value if isinstance(value, tuple) else (value,))
    shapes = {name: (batch,) * len(value) if isinstance(value, tuple) else batch for name, value in examples.items()}
    with torch.no_grad():  # strict: else len(x) would be taken for the example's number of rows
        program = torch.export.export(sampler, tuple(arguments), dynamic_shapes=shapes, strict=True)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, and most of a small file
    return program


def _program_file(program: Any, text: str) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": text})
    return buffer.getvalue()


def _onnx_file(program: Any, names: list[str], text: str, quantize: str | None) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about how torch uses itself
        exported = torch.onnx.export(program, dynamo=True, input_names=names, output_names=["sample"], verbose=False)
    assert exported is not None
    model = exported.model_proto
    if quantize == "int8":
        model = _quantized(model)
    _tidy(model)
    model.metadata_props.add(key=METADATA_KEY, value=text)
    return model.SerializeToString()


def _tidy(model: Any) -> None:
    """Leave out what no runtime needs, and name the size of the batch."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"


def _quantized(model: Any) -> Any:
    """The model with 8-bit weights in its matrix products, whose inputs are quantised while it runs."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _transpose_weights(model)
    # what the quantiser would warn of without: torch's exporter has inferred the shapes and folded the constants
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(
            model,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            weight_type=QuantType.QUInt8,  # products of signed weights overflow on processors without VNNI
            per_channel=True,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
        return onnx.load(target)


def _transpose_weights(model: Any) -> None:
    """Weights of Gemm nodes as their products read them: the quantiser turns each as often as it is used."""
    from onnx import numpy_helper

    weights, turned = {weight.name: weight for weight in model.graph.initializer}, {}
    for node in model.graph.node:
        flag = next((attribute for attribute in node.attribute if attribute.name == "transB"), None)
        if node.op_type == "Gemm" and flag is not None and flag.i and node.input[1] in weights:
            name = f"{node.input[1]}.T"
            if name not in turned:
                weight = numpy_helper.to_array(weights[node.input[1]])
                turned[name] = numpy_helper.from_array(weight.T.copy(), name)
            node.input[1], flag.i = name, 0
    used = {name for node in model.graph.node for name in node.input}
    kept = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *turned.values()])
    del model.graph.value_info[:]  # inferred anew
