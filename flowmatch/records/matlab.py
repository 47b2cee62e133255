"""Files of MATLAB as nested dicts: up to version 7 by scipy, of version 7.3, which are HDF5, by h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_OWN = ("__header__", "__version__", "__globals__", "__function_workspace__", "#refs#", "#subsystem#")


def read_matlab(path: Path) -> dict[str, Any]:
    """Variables by name; structs are dicts, cells and arrays of structs lists, characters text.

    Raises
    ------
    ImportError
        For a file of version 7.3 where h5py is not installed.
    """
    from scipy.io import loadmat

    try:
        variables = loadmat(path, simplify_cells=True)
    except NotImplementedError:  # as scipy says of version 7.3
        variables = _read_hdf5(path)
    return {name: value for name, value in variables.items() if name not in _OWN}


def _read_hdf5(path: Path) -> dict[str, Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"{str(path)!r} is a MATLAB file of version 7.3, which needs h5py: pip install 'flowmatch[signals]', or "
            "save it by save(..., '-v7') in MATLAB."
        ) from error

    def plain(node: Any) -> Any:
        if isinstance(node, h5py.Group):
            return {name: plain(node[name]) for name in node if name not in _OWN}
        kind = node.attrs.get("MATLAB_class", b"")
        if "MATLAB_empty" in node.attrs:
            return "" if kind == b"char" else np.empty(0)
        values = node[()]
        if kind == b"char":
            return "".join(map(chr, np.ravel(values)))
        if h5py.check_ref_dtype(node.dtype) is not None:
            return [plain(node.file[reference]) for reference in np.ravel(values)]
        return np.asarray(values).T  # MATLAB stores columns first

    with h5py.File(path, "r") as file:
        return plain(file)
