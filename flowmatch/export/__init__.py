"""Samplers as files that run without flowmatch: programs for PyTorch, or ONNX models."""

from flowmatch.export.files import export, export_forecaster
from flowmatch.export.forecasts import ForecastForm, ForecastSampler
from flowmatch.export.sampler import Sampler, describe_sampler, sampler_of

__all__ = [
    "ForecastForm",
    "ForecastSampler",
    "Sampler",
    "describe_sampler",
    "export",
    "export_forecaster",
    "sampler_of",
]
