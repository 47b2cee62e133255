"""The rows that a student of a generator is distilled from."""

from __future__ import annotations

import math
from typing import Any

from flowmatch import fitting
from flowmatch.distillation.settings import MOST_ELEMENTS, N_PAIRS
from flowmatch.preprocessing import GridEncoder


def rows_to_distil_from(
    parameters: Any, teacher: Any, seed: int, X: Any, y: Any, sample_weight: Any
) -> fitting.TrainingData:
    """The user's rows as training sees them, or without any the teacher's own samples.

    Parameters
    ----------
    parameters : DistilledFlowMap
    teacher : FlowMatchingGenerator
        Fitted.
    seed : int
        Of the samples.
    X, y, sample_weight
        As in `fit`; X may be None.

    Raises
    ------
    ValueError
        For rows unlike those of the teacher, and without any for conditions that the teacher does not keep.
    """
    model = teacher.model_
    if X is not None:
        return fitting.training_rows_of(model, fitting.read_rows_like(teacher, X, y, sample_weight))
    if isinstance(model.conditions, GridEncoder):
        raise ValueError("this model has grids as conditions and keeps none of them: pass X and y to fit.")
    n_samples = max(2, parameters.n_pairs or min(N_PAIRS, MOST_ELEMENTS // math.prod(model.code_shape)))
    one_step = parameters.step_sampler is None and parameters.n_steps * (parameters.n_stages or 1) == 1
    starts_at_noise = parameters.method == "reflow" or (parameters.method == "progressive" and one_step)
    if starts_at_noise and model.missing is None:
        return fitting.condition_rows_of(model, n_samples, seed)
    own = {**teacher.get_params(deep=False), "verbose": parameters.verbose}
    sampler = type(teacher).from_fitted(teacher.fitted_, **own)
    X, y = sampler.sample(n_samples, random_state=seed, return_y=True)  # what is given must fit together
    return fitting.training_rows_of(model, fitting.read_rows_like(teacher, X, y, None))
