"""One fitted estimator and one ``.safetensors`` file, both ways. No pickle: reading a file can run no code of its own.

The file holds the tensors (network weights and fitted arrays) and one metadata key with sorted JSON: format version,
class, parameters, what was fitted, and library versions. Identical models give identical bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from flowmatch.core.devices import resolve_device
from flowmatch.core.storable import ESTIMATORS, MISFITS, is_registered
from flowmatch.core.tensor_file import read_tensors, write_tensors
from flowmatch.core.user_warnings import warn
from flowmatch.core.version import __version__
from flowmatch.persistence.codec import UnstorableError, ValueDecoder, ValueEncoder
from flowmatch.persistence.format_3 import read_format_3, teacher_of_format_3

FORMAT_VERSION = 4


def save(
    estimator: Any, path: str | os.PathLike[str], *, teacher_weights: str | None = None, with_teacher: bool = True
) -> None:
    """Write a fitted estimator.

    Parameters
    ----------
    estimator : Estimator
    path : path-like
    teacher_weights : str, optional
        What the names of a teacher's weights in `fitted_` begin with, if there are any.
    with_teacher : bool
        Whether the file holds those, or only their digest.

    Raises
    ------
    ValueError
        If the path cannot be written, or the estimator's class or a parameter cannot be in a file.
    """
    if not is_registered(ESTIMATORS, type(estimator)):
        name = type(estimator).__name__
        raise ValueError(
            f"{name} is not a class that files know, since another one has its name; save it with pickle or joblib."
        )
    encoder = ValueEncoder()
    tensors, header = encoder.tensors, encoder.estimator(estimator)
    try:
        header["fitted"] = encoder.value("fitted", estimator.fitted_)
        encoder.check()
    except UnstorableError as error:
        raise ValueError(
            f"what was fitted cannot be written to a file ({error}); save with pickle or joblib."
        ) from error
    header["format_version"] = FORMAT_VERSION
    libraries = {library.__name__: library.__version__ for library in (torch, np, sklearn)}
    header["versions"] = {"flowmatch": __version__, **libraries}
    if encoder.factory is not None:
        warn(f"parameter network={encoder.factory!r} cannot be written to a file: pass it to load(path, network=...).")
    if teacher_weights is not None:
        prefix = f"fitted.{teacher_weights}"
        known = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        header["teacher"] = {"prefix": prefix, "digest": _digest(known.values()), "included": with_teacher}
        if not with_teacher:
            tensors = {name: value for name, value in tensors.items() if name not in known}
    write_tensors(path, tensors, header)


def load(
    path: str | os.PathLike[str],
    device: Any = "auto",
    *,
    network: Callable[..., nn.Module] | None = None,
    teacher: Any = None,
) -> Any:
    """Read an estimator that `save` wrote, on any device.

    Components and estimators of your own are found by the names of their classes: import what defines them before.

    Parameters
    ----------
    path : path-like
    device : "auto", str or torch.device, default="auto"
        Where the estimator is to work from now on.
    network : callable, optional
        The network factory, for an estimator whose `network` parameter was one: a file holds no code.
    teacher : fitted estimator, optional
        The teacher of a student that was saved without the teacher's weights though it needs them.

    Returns
    -------
    The fitted estimator.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, not written by flowmatch, of a format this version does not know, or damaged; if it
        lacks its teacher's weights and `teacher` is not that teacher.

    Examples
    --------
    >>> import numpy as np, tempfile, os, flowmatch
    >>> X = np.random.default_rng(0).normal(size=(100, 2))
    >>> generator = flowmatch.FlowMatchingGenerator(max_iter=10, random_state=0).fit(X)
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> generator.save(path)
    >>> bool((flowmatch.load(path).sample(5, random_state=0) == generator.sample(5, random_state=0)).all())
    True
    """
    if isinstance(teacher, BaseEstimator):
        check_is_fitted(teacher)
    tensors, header = read_tensors(path)
    version = header.get("format_version")
    if version not in (3, FORMAT_VERSION):
        raise ValueError(
            f"{str(path)!r} has format version {version!r}; this flowmatch ({__version__}) reads the versions 3 and "
            f"{FORMAT_VERSION}."
        )
    if version == FORMAT_VERSION and "checksum" not in header:
        raise ValueError(f"{str(path)!r} is damaged: its checksum is missing.")
    _warn_of_newer(path, header.get("versions"))
    try:
        known = teacher_of_format_3(header) if version == 3 else header.get("teacher")
        if teacher is not None or (known is not None and not known["included"]):
            tensors = {**tensors, **_teacher_weights(known, teacher)}
        if version == 3:
            header = read_format_3(tensors, header)
        decoder = ValueDecoder(tensors, network, device)
        estimator = decoder.estimator(header)
        estimator.fitted_ = decoder.value(header["fitted"])
        if network is not None and not decoder.network_was_used:
            raise ValueError("network is for models of a network factory, which this file does not lack: leave it out.")
        estimator.check_fitted()
        if teacher is not None:
            estimator.fitted_ = replace(estimator.fitted_, teacher=teacher)
        estimator.fitted_ = estimator.fitted_.to(resolve_device(device))
        return estimator
    except KeyError as error:
        raise ValueError(f"the contents of {str(path)!r} are incomplete: {error} is missing.") from error
    except MISFITS as error:
        raise ValueError(
            f"the contents of {str(path)!r} do not fit together ({type(error).__name__}: {error})."
        ) from error


def _warn_of_newer(path: Any, versions: Any) -> None:
    """Warn of a file that a newer minor version has written: this one may read it in another way."""
    found = re.match(r"(\d{1,4})\.(\d{1,4})", str(versions.get("flowmatch"))) if isinstance(versions, dict) else None
    own = tuple(map(int, __version__.split(".")[:2]))
    if found is not None and tuple(map(int, found.groups())) > own:
        warn(
            f"{str(path)!r} was written by flowmatch {found[0]}, which is newer than this one ({__version__}): it may "
            "give other results here. Update flowmatch."
        )


def _teacher_weights(known: Mapping[str, Any] | None, teacher: Any) -> dict[str, Tensor]:
    """The weights of a teacher's velocity, in place of those that a file was saved without.

    Raises
    ------
    ValueError
        If that is not the teacher, or none is needed.
    """
    if known is None:
        raise ValueError("teacher is for students that need one, which the file does not hold: leave teacher out.")
    if teacher is None:
        raise ValueError(
            "the file holds a student that corrects its teacher's velocity, but not the teacher (it was saved with "
            "teacher=False): call load(path, teacher=...) with the estimator it was distilled from."
        )
    if not is_registered(ESTIMATORS, type(teacher)):
        raise ValueError(f"teacher must be the estimator that the student was distilled from, got {teacher!r}.")
    check_is_fitted(teacher)
    weights = teacher.model_.velocity_weights()
    if _digest(weights.values()) != known["digest"]:
        raise ValueError("this teacher's weights are not those that the student was distilled from.")
    return {f"{known['prefix']}{name}": value for name, value in weights.items()}


def _digest(weights: Iterable[Tensor]) -> str:
    """A digest that identifies a teacher."""
    parts = [value.detach().cpu().contiguous().numpy().tobytes() for value in weights]
    return hashlib.sha256(b"".join(parts)).hexdigest()
