"""Samplers as files that run without flowmatch: programs for PyTorch, or ONNX models."""

from flowmatch.export.files import export
from flowmatch.export.sampler import Sampler, describe_sampler, sampler_of

__all__ = ["Sampler", "describe_sampler", "export", "sampler_of"]
