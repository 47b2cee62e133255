"""Documentation of parameters that several estimators share, written once."""

from __future__ import annotations

import re

SHARED_PARAMETERS = {
    "categorical_features": """\
categorical_features : "auto", None, or array-like of names, indices or bools, default="auto"
    Columns of a table that are categories. "auto" takes those of text, booleans and pandas' category dtype; a list
    names further ones, such as numbers that are codes. None allows no categories.""",
    "identifiers": """\
identifier_columns : "auto", None, or array-like of names, indices or bools, default="auto"
    Columns of a table that hold keys, one a row. They are not learned. "auto" takes distinct text and UUIDs, and
    integers that are not distinct by chance, of at least 50 rows, and says which in a warning. None takes none.
identifiers : {"fresh", "drop", "empty"}, default="fresh"
    What synthetic rows have there: new keys of the same form, of which none is one of `fit`'s and none comes twice in
    a call; no such columns; or missing entries.""",
    "constraints": """constraints : None, "auto" or list of Constraint, default=None
    What every drawn row of a table is to keep: `flowmatch.preprocessing.FixedCombinations`, `Inequality`, `Formula`
    and `Unique`. "auto" finds those that hold in all training rows and would hardly do so by chance; `constraints_`
    lists them, and a list without some of them switches these off.""",
    "unknown_categories": """unknown_categories : {"error", "missing"}, default="error"
    What a category is that training has not seen, in tables to score, fill or train on: an error, or a missing entry.
    `impute` leaves it as it is.""",
    "network": """network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
    "auto" takes a `flowmatch.networks.MLP` for tables (a generator's grows with their rows and columns) and a
    `flowmatch.networks.UNet` for signals, images and fields. A factory is called as
    ``factory(sample_shape, condition_size, flow_map)``; see
    `flowmatch.model.NetworkFactory` for what its modules take and return.""",
    "path": """path : {"linear", "vp", "cosine"} or Path, default="linear"
    How noise and data are mixed along time.""",
    "coupling": """coupling : {"independent", "ot"} or Coupling, default="independent"
    How noise is paired with data within a batch. "ot" pairs them by exact assignment in blocks of 128, inside a
    class when `y` holds labels (it has no effect under other conditions, and is refused): straighter paths, fewer
    solver steps, 1.4 times the cost of a training step.""",
    "source": """source : {"normal", "matched", "sparse"} or Source, default="normal"
    The distribution of the noise.""",
    "time_sampler": """time_sampler : {"auto", "uniform", "stratified", "u_shaped", "logit_normal", "data_emphasis", \
"noise_emphasis"} or TimeSampler, default="auto"
    How training times are drawn. "auto" takes "logit_normal", for large grids with a mean nearer to the noise.""",
    "loss": """loss : {"l2", "huber", "sobolev", "multiscale"} or ResidualLoss, default="l2"
    Norm of the velocity's error; see `flowmatch.objectives`.""",
    "loss_weight": """\
loss_weight : {"uniform", "snr", "min_snr", "data_end", "noise_end", "adaptive"}, LossWeight or callable, \
default="uniform"
    Weight of the loss over time; a callable is given times (B,) and returns weights (B,).""",
    "solver": """solver : str, default="auto"
    "euler", "midpoint", "heun", "rk4" or "ab2" (fixed steps); "dopri5", "dopri8", "bosh3", "fehlberg2" or
    "adaptive_heun" (adaptive, from torchdiffeq; their step is shared by the batch); "flow_map" (the steps of a
    model with ``objective="mean_flow"``). "auto" takes "flow_map" where there is one, else "midpoint".""",
    "max_time": """max_time : float or None, default=None
    Seconds that training may take, counted from the call of `fit` on; what comes after training is not counted. After
    a few steps that are timed, the number of steps that fit in is set, once, so that the learning rate falls to its
    end; a warning says if that is less than `max_iter`, or less than None would take. With ``max_iter=None`` more
    time also makes more steps where None ends for the sake of time alone. ``max_iter=model.max_iter_`` repeats the fit
    to the bit, however busy the machine is.""",
    "n_steps": """n_steps : int or None, default=None
    Steps of the fixed-step solvers. None takes 1 for "flow_map", else 10.""",
    "batch_size": """batch_size : int or None, default=None
    Rows a step. None takes 256 of a table, and 32 signals, images or fields.""",
    "learning_rate": """learning_rate : float or None, default=None
    Peak learning rate. None takes 0.005 for tables and 0.004 for grids.""",
    "conditions": """condition_dropout : float, default=0.1
    Share of training rows whose condition is hidden, so that the model learns the unconditional distribution
    too; guidance needs that. No effect without conditions.
guidance_scale : float, default=1.0
    Classifier-free guidance at sampling: 1 follows the condition as learned, larger values exaggerate it. With
    ``objective="mean_flow"`` it is learned in training and cannot be changed afterwards.""",
    "masked_share": """masked_share : float, default=0.3
    Share of a table's training rows of which the network is shown some entries, as the basis of `impute` and of
    ``sample(given=...)``; 0 trains for whole rows alone. No effect on grids.""",
    "training": """training : TrainingOptions or None, default=None
    What else there is to tune about training; None stands for ``TrainingOptions()``.""",
    "device": """device : "auto", str or torch.device, default="auto"
    "auto" takes cuda, then mps, then cpu.""",
    "random_state": """random_state : int, RandomState or None, default=None
    Seeds initialization, shuffling, noise and times of `fit`. Global generators are never touched.""",
    "verbose": """verbose : bool or int, default=0
    Show progress bars, of training with loss and learning rate, and say what "auto" picked.""",
    "warm_start": """warm_start : bool, default=False
    Whether `fit` goes on from the fitted weights and scaling instead of starting anew.""",
}
"""numpydoc entries by name."""

_MARK = re.compile(r"^( *)\[shared: ([\w, ]+)\]$", re.MULTILINE)


def with_shared_parameters(docstring: str | None) -> str | None:
    """A class's docstring with the entries in place of a line such as ``[shared: device, verbose]``."""
    if docstring is None:  # python -OO
        return None

    def entries(mark: re.Match[str]) -> str:
        named = [SHARED_PARAMETERS[name] for name in mark[2].split(", ")]
        return "\n".join(mark[1] + line if line else line for line in "\n".join(named).splitlines())

    return _MARK.sub(entries, docstring)
