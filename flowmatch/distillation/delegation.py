"""What a student answers as its teacher does: attributes and methods of the teacher's class."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from sklearn.utils.metaestimators import available_if


class Taught:
    """An attribute that a student has from its teacher."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, student: Any, owner: type) -> Any:
        if student is None:
            return self
        return getattr(student.as_teacher(), self.name)


def teacher_has(name: str) -> Any:
    """Whether the teacher, or the estimator that is to become one, has a method."""

    def check(self: Any) -> bool:
        getattr(self.unwrapped_estimator, name)
        return True

    return check


def as_the_teacher(method: Callable[..., Any]) -> Any:
    """A method of the teacher's class, in the student's steps, where the teacher has it."""

    @available_if(teacher_has(method.__name__))
    @functools.wraps(method)
    def delegate(self: Any, *arguments: Any, **named: Any) -> Any:
        return getattr(self.as_teacher(), method.__name__)(*arguments, **named)

    return delegate
