"""Columns of keys: which they are, the form of their keys, and fresh keys of that form."""

from __future__ import annotations

import itertools
import math
import re
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flowmatch.core.storable import require, storable
from flowmatch.core.types import AnyArray

Choices = tuple[tuple[str, ...], ...]
"""What each place of a key may hold."""

DIGITS = tuple("0123456789")

_MOST_PATTERNS, _LEAST_MEMBERS = 30, 5
_OBSERVED = 20
"""So many keys of a pattern say what its places may hold; of fewer that would tell too much of each."""

_EXAMINED = 20_000
_SPARSE = 10
"""Numbers of which fewer than one in so many are keys do not count."""

_STARTS = 100
_BLOCK = 1000


@storable
@dataclass(frozen=True)
class KeyForm:
    """The form of a column's keys, from which fresh ones are made; it holds none of the keys.

    Keys that count, such as 17 or "C-0017", go on from the largest. Others are put together place by place, and begin
    as no key of training does: none of those can come out.

    Parameters
    ----------
    entry_type : {"int", "text", "uuid"}
        What the keys are.
    start : int, default=0
        The next number, of keys that count.
    prefix, suffix : str, default=""
        What stands around it.
    width : int, default=0
        To so many digits it is padded with zeros.
    patterns : tuple of tuple of tuple of str, default=()
        Of keys that do not count: what each place may hold.
    shares : tuple of float, default=()
        How often each pattern occurs.
    missing : float, default=0.0
        Share of the rows that have no key.

    Examples
    --------
    >>> KeyForm.fit(["C-007", "C-008", "C-011"], "text").fresh(2, seed=0)
    ['C-012', 'C-013']
    """

    entry_type: str
    start: int = 0
    prefix: str = ""
    suffix: str = ""
    width: int = 0
    patterns: tuple[Choices, ...] = ()
    shares: tuple[float, ...] = ()
    missing: float = 0.0

    @classmethod
    def fit(cls, keys: Sequence[Any] | AnyArray, entry_type: str) -> KeyForm:
        """Find the form of keys.

        Parameters
        ----------
        keys : sequence
            Numbers, text or UUIDs that are distinct.
        entry_type : {"int", "text", "uuid"}
            Which of these.

        Returns
        -------
        KeyForm
        """
        if entry_type == "int":
            return cls(entry_type, start=_beyond(keys))
        texts = [str(key) for key in keys]
        counted = _counted(texts) if entry_type == "text" else None
        if counted is not None:
            return cls(entry_type, *counted)
        patterns, counts = _uuids(texts) if entry_type == "uuid" else _patterns(texts)
        return cls(entry_type, patterns=patterns, shares=tuple(count / sum(counts) for count in counts))

    def besides(self, keys: Sequence[Any]) -> KeyForm:
        """Spare further keys too.

        Parameters
        ----------
        keys : sequence
            Keys of the column that `fit` has not seen.

        Returns
        -------
        KeyForm
            The same form; none of these keys comes out either.
        """
        texts = [str(key) for key in keys]
        if self.patterns:
            starts = _Starts(texts)
            return replace(self, patterns=tuple(starts.free(pattern, 0) for pattern in self.patterns))
        if self.entry_type == "int":
            return replace(self, start=max([self.start, *([_beyond(keys)] if texts else [])]))
        form = re.compile(rf"{re.escape(self.prefix)}(\d{{1,18}}){re.escape(self.suffix)}", re.ASCII)
        numbers = [int(found[1]) + 1 for found in map(form.fullmatch, texts) if found]
        return replace(self, start=max([self.start, *numbers]))

    def check(self) -> None:
        """Raise a ValueError if the fields of a stored form do not fit each other."""
        require(self.entry_type in ("int", "text", "uuid") and 0 <= self.width <= 1000, "keys")
        require(len(self.patterns) == len(self.shares) and (self.entry_type != "int" or not self.patterns), "keys")
        require(all(0 < share <= 1 for share in self.shares) and 0 <= self.missing < 1, "keys")
        require(not self.patterns or abs(sum(self.shares) - 1) < 1e-6, "keys")
        n_ways = [math.prod(map(len, pattern)) for pattern in self.patterns]
        require(self.entry_type != "uuid" or min(n_ways, default=0) >= 2**64, "keys")  # they cannot become longer
        require(all(place and pattern for pattern in self.patterns for place in pattern), "keys")

    def fresh(self, n_keys: int, seed: int, taken: Collection[Any] = ()) -> list[Any]:
        """Make new keys.

        Parameters
        ----------
        n_keys : int
            How many; more begin with the same.
        seed : int
            Of keys that do not count.
        taken : collection, default=()
            Keys that there are already.

        Returns
        -------
        list
            Distinct keys of the column's type, none of them one of training or one that is taken.
        """
        candidates = itertools.count(self.start) if self.entry_type == "int" else self._texts(seed)
        make: Callable[[Any], Any] = uuid.UUID if self.entry_type == "uuid" else lambda key: key
        seen, found = set(taken), list[Any]()
        for key in map(make, candidates):
            if len(found) == n_keys:
                break
            if key not in seen:
                seen.add(key)
                found.append(key)
        return found

    def _texts(self, seed: int) -> Iterator[str]:
        """Texts of the form, some of them more than once; ever longer ones when there are few new ones left."""
        if not self.patterns:
            yield from (f"{self.prefix}{k:0{self.width}d}{self.suffix}" for k in itertools.count(self.start))
        rng, known, more = np.random.default_rng(seed), set[str](), 0
        width, borders = 1 + max(map(len, self.patterns)), np.cumsum(self.shares[:-1])
        while True:
            u = rng.random((_BLOCK, width + more))
            chosen, block = np.searchsorted(borders, u[:, 0], side="right"), np.full(_BLOCK, "", dtype=object)
            for k in np.unique(chosen):
                start, *rest = self.patterns[k]
                for place, x in zip((start, *[DIGITS] * more, *rest), u[chosen == k, 1:].T, strict=False):
                    block[chosen == k] += np.array(place, dtype=object)[(x * len(place)).astype(np.intp)]
            yield from block.tolist()
            n_known = len(known)
            known.update(block)
            more += len(known) - n_known < _BLOCK / 2 and self.entry_type == "text"


def wide_enough(dtype: str, largest: int) -> str:
    """The name of a dtype of integers with as many bits as a number needs; other names stay.

    Parameters
    ----------
    dtype : str
        Such as "int8", "UInt32" or "int16[pyarrow]".
    largest : int
        The number.

    Returns
    -------
    str
        The same name, perhaps with more bits.

    Raises
    ------
    ValueError
        If no integer has as many.
    """
    parts = re.fullmatch(r"(u?int)(8|16|32|64)(.*)", dtype, re.IGNORECASE)
    if parts is None:
        return dtype
    signed = parts[1][0] not in "uU"
    bits = next((bits for bits in (8, 16, 32, 64) if bits >= int(parts[2]) and largest < 2 ** (bits - signed)), 0)
    if not bits:
        raise ValueError(f"there is no fresh key left that a column of {dtype} can hold: choose identifiers='empty'.")
    return f"{parts[1]}{bits}{parts[3]}"


def _beyond(keys: Sequence[Any] | AnyArray) -> int:
    """The next whole number; of floats that cannot tell it apart, the next that they can."""
    largest = max(keys)
    return max(int(largest) + 1, int(np.nextafter(largest, np.inf))) if isinstance(largest, float) else int(largest) + 1


def _common_start(texts: list[str]) -> str:
    ends = zip(min(texts), max(texts), strict=False)
    return "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))


def _counted(texts: list[str]) -> tuple[int, str, str, int] | None:
    """Next number, prefix, suffix and width of texts that differ in a number which counts; None for others."""
    prefix = _common_start(texts).rstrip("0123456789")
    rest = [text[len(prefix) :] for text in texts]
    suffix = _common_start([text[::-1] for text in rest])[::-1].lstrip("0123456789")
    middles = [text[: len(text) - len(suffix)] for text in rest]
    if not all(middle.isascii() and middle.isdecimal() for middle in middles):
        return None
    widths, is_padded = set(map(len, middles)), any(len(m) > 1 and m[0] == "0" for m in middles)
    if max(widths) > 18 or (is_padded and len(widths) > 1):
        return None
    numbers = list(map(int, middles))
    if max(numbers) - min(numbers) >= _SPARSE * len(numbers):
        return None
    return max(numbers) + 1, prefix, suffix, max(widths) if is_padded else 0


def _fine(text: str) -> str:
    """A text with its letters and digits replaced by what they are."""
    return "".join("0" if c.isdecimal() else "A" if c.isupper() else "a" if c.isalpha() else c for c in text)


def _coarse(text: str) -> str:
    return "".join("x" if c.isalnum() else c for c in text)


def _patterns(texts: list[str]) -> tuple[tuple[Choices, ...], list[int]]:
    """What the places of most texts may hold, pattern by pattern, and how many texts are of each."""
    some = texts[:: -(-len(texts) // _EXAMINED)]
    characters = sorted({c for text in some for c in text if c.isalnum()}) or list(DIGITS)
    for classify in (_fine, _coarse):
        counts = Counter(map(classify, some)).most_common(_MOST_PATTERNS)
        counts = [(pattern, count) for pattern, count in counts if count >= max(_LEAST_MEMBERS, len(some) // 200)]
        if sum(count for _, count in counts) >= len(some) / 2:
            break
    else:  # texts of no form, such as sentences
        length = int(np.clip(np.median([len(text) for text in some]), 8, 40))
        counts, classify = [("x" * length, len(some))], lambda text: ""
    starts, found = _Starts(texts), []
    for pattern, count in counts:
        members = [text for text in some if classify(text) == pattern] if count >= _OBSERVED else []
        places = [tuple(sorted(set(column))) for column in zip(*members, strict=True)] or [
            tuple(c for c in characters if kind in (_fine(c), _coarse(c))) or (kind,) for kind in pattern
        ]
        found.append(starts.free(places, count * len(texts) // len(some)))
    return tuple(found), [count for _, count in counts]


def _uuids(texts: list[str]) -> tuple[tuple[Choices, ...], list[int]]:
    """The same of UUIDs: any digits, but for those that say which version they are."""
    seen = [tuple(sorted(set(column))) for column in zip(*texts, strict=True)]
    places = [seen[i] if i in (8, 13, 14, 18, 19, 23) else tuple("0123456789abcdef") for i in range(36)]
    return (_Starts(texts).free(places, 0),), [1]


class _Starts:
    """What keys begin with."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.known = texts, dict[int, set[str]]()
        self.random = np.random.RandomState(0)

    def free(self, places: Sequence[tuple[str, ...]], n_keys: int) -> Choices:
        """Places, of which the first are joined to starts that no key has, and more if there are few ways for them."""
        for length in itertools.count(1):
            head = [*places, *[DIGITS] * length][:length]
            drawn = {"".join(place[self.random.randint(len(place))] for place in head) for _ in range(2 * _STARTS)}
            size = len(next(iter(drawn)))
            taken = self.known.setdefault(size, {text[:size] for text in self.texts})
            free = sorted(drawn - taken)[:_STARTS]
            if len(free) >= _STARTS // 5:
                break
        tail = list(places[length:])
        n_ways = len(free) * math.prod(map(len, tail))
        while n_ways < 10 * n_keys:
            tail, n_ways = [DIGITS, *tail], n_ways * 10
        return (tuple(free), *tail)
