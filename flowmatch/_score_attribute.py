"""A parameter that is called like one of scikit-learn's methods."""

from __future__ import annotations

from typing import Any

import numpy as np


class ScoreAttribute:
    """The parameter `score`, which scikit-learn's tools take for a method: it equals the one and acts as the other."""

    def __get__(self, detector: Any, owner: type) -> Any:
        return self if detector is None else BoundScore(detector, vars(detector)["score"])

    def __set__(self, detector: Any, value: Any) -> None:
        vars(detector)["score"] = value


class BoundScore:
    """What ``detector.score`` gives: the parameter's value, and the mean of `score_samples` when it is called."""

    def __init__(self, detector: Any, value: Any) -> None:
        self._detector, self._value = detector, value

    def __call__(self, X: Any, y: Any = None) -> float:
        """Mean of ``score_samples(X)``; `y` is ignored."""
        return float(np.mean(self._detector.score_samples(X)))

    def __eq__(self, other: object) -> bool:
        return bool(self._value == other)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return repr(self._value)

    def __str__(self) -> str:
        return str(self._value)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_value"), name)
