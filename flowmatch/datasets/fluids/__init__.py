"""Trajectories of fluids by seed: simulations small enough for a laptop, each verified against theory."""

from flowmatch.datasets.fluids.compressible import make_compressible_navier_stokes
from flowmatch.datasets.fluids.kuramoto_sivashinsky import (
    make_kuramoto_sivashinsky,
    sample_next_kuramoto_sivashinsky,
)
from flowmatch.datasets.fluids.navier_stokes import make_navier_stokes
from flowmatch.datasets.fluids.rayleigh_taylor import make_rayleigh_taylor, vertical_slices

__all__ = [
    "make_compressible_navier_stokes",
    "make_kuramoto_sivashinsky",
    "make_navier_stokes",
    "make_rayleigh_taylor",
    "sample_next_kuramoto_sivashinsky",
    "vertical_slices",
]
