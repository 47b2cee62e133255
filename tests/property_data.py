"""What users may pass, in all kinds of containers, as strategies of hypothesis: some of it data, some of it not."""

import datetime
import decimal
import fractions
import warnings

import numpy as np
import pandas as pd
import polars as pl
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

DTYPES = ["f2", "f4", "f8", ">f8", "i1", "u2", "i8", "u8", "?"]
ODD_DTYPES = ["c8", "M8[s]", "m8[D]", "U3", "S2", "O"]
TABLES = [(0, 2), (1, 2), (2, 1), (3, 3), (7, 1), (8, 3), (12, 2)]
GRIDS = [(0, 2, 3), (1, 1, 3), (6, 2, 3), (5, 1, 1), (4, 1, 2, 2), (3, 1, 2, 2, 2), (4, 2, 0), (4, 0, 3)]
OTHERS = [(), (0,), (1,), (6,), (6, 0), (0, 0)]
HUGE = 10**5000


def frame_of(array):
    return pd.DataFrame(array, columns=[f"c{j}" for j in range(array.shape[1])])


def masked(array):
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) % 5 == 4)


CONTAINERS = {
    "array": lambda a: a,
    "fortran": np.asfortranarray,
    "strided": lambda a: np.concatenate([a, a])[: len(a)],
    "list": lambda a: a.tolist(),
    "tuple": lambda a: tuple(a.tolist()),
    "list of arrays": list,
    "tensor": lambda a: torch.as_tensor(a.astype(a.dtype.newbyteorder("="))),
    "bfloat16": lambda a: torch.as_tensor(a.astype("f4")).bfloat16(),
    "leaf": lambda a: torch.as_tensor(a.astype("f4")).requires_grad_(),
    "frame": frame_of,
    "index": lambda a: frame_of(a).set_index(pd.date_range("2024-02-27", periods=len(a))),
    "polars": lambda a: pl.DataFrame({f"c{j}": a[:, j] for j in range(a.shape[1] if a.dtype != object else 0)}),
    "masked": masked,
    "memoryview": lambda a: memoryview(np.ascontiguousarray(a)),
    "object": lambda a: a.astype(object),
}
REFUSED = {  # containers of which no data can be read, at least not by all
    "sparse": lambda a: sparse.csr_array(a.reshape(len(a), -1).astype("f8")),
    "sparse tensor": lambda a: torch.as_tensor(a.astype("f8")).to_sparse(),
    "csr tensor": lambda a: torch.as_tensor(a.reshape(len(a), -1).astype("f8")).to_sparse_csr(),
    "meta": lambda a: torch.empty(a.shape, device="meta"),
    "float8": lambda a: torch.as_tensor(a.astype("f4")).to(torch.float8_e5m2),
    "structured": lambda a: np.zeros(a.shape, dtype=[("x", "f8"), ("y", "i4")]),
    "void": lambda a: np.zeros(a.shape, dtype="V4"),
    "iterator": lambda a: iter(a.tolist()),
    "generator": lambda a: (row for row in a),
    "dict": lambda a: {"x": a.tolist()},
    "set": lambda a: set(a.ravel().tolist()),
    "ragged": lambda a: [list(range(1 + i % 3)) for i in range(len(a))],
    "double names": lambda a: frame_of(a).set_axis(["c"] * a.shape[1], axis=1),
    "mixed names": lambda a: frame_of(a).set_axis([f"c{j}" if j else 0 for j in range(a.shape[1])], axis=1),
    "digits": lambda a: [[HUGE, *row[1:]] for row in a.tolist()],
    "nothing": lambda a: None,
    "text": lambda a: "text",
    "number": lambda a: 3.5,
    "class": lambda a: int,
    "nested": lambda a: [[[1], 2.0]] * max(2, len(a)),
    "columns of a frame": lambda a: frame_of(a).iloc[:, :0],
    "no polars": lambda a: pl.DataFrame(),
    "lazy": lambda a: pl.DataFrame(frame_of(a)).lazy(),
    "signaling": lambda a: [[decimal.Decimal("sNaN"), 1], [decimal.Decimal(2), 2]],
}


@st.composite
def arrays(draw, shapes=(*TABLES, *GRIDS, *OTHERS), dtypes=(*DTYPES, *ODD_DTYPES)):
    """Arrays of few rows: mostly tame numbers, sometimes whatever the dtype can hold."""
    dtype, shape = np.dtype(draw(st.sampled_from(dtypes))), draw(st.sampled_from(shapes))
    wild = draw(st.integers(0, 3)) == 0
    if dtype.kind == "O":
        entries = [1, 2.5, None, "a", HUGE, decimal.Decimal("1.5"), fractions.Fraction(1, 3), True, 1j, [1]]
        table = np.empty(shape, dtype=object)
        for place in np.ndindex(*shape):
            table[place] = draw(st.sampled_from(entries if wild else entries[:2]))
        return table
    if wild or dtype.kind in "USMm":
        return draw(hnp.arrays(dtype, shape))
    seed = draw(st.integers(0, 50))
    numbers = np.random.default_rng(seed).normal(size=shape) * draw(st.sampled_from([0.0, 1.0, 30.0]))
    with np.errstate(invalid="ignore"):
        return np.asarray(np.abs(numbers) if dtype.kind == "u" else numbers).astype(dtype)


@st.composite
def data(draw, shapes=(*TABLES, *GRIDS, *OTHERS), dtypes=(*DTYPES, *ODD_DTYPES)):
    """The same in a container, one of those that are refused among them."""
    array = draw(arrays(shapes, dtypes))
    kind = draw(st.sampled_from([*CONTAINERS, *CONTAINERS, *REFUSED]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about what is young in it
            return {**CONTAINERS, **REFUSED}[kind](array)
    except Exception:  # it does not go into this container
        return array


COLUMNS = {
    "float": lambda rng, n: rng.normal(size=n),
    "holes": lambda rng, n: np.where(np.arange(n) % 3 == 1, np.nan, rng.normal(size=n)),
    "int": lambda rng, n: rng.integers(-3, 9, n),
    "int8": lambda rng, n: rng.integers(-100, 100, n).astype("i1"),
    "Int64": lambda rng, n: pd.array([None if i % 4 == 2 else i for i in range(n)], dtype="Int64"),
    "bool": lambda rng, n: rng.random(n) < 0.5,
    "boolean": lambda rng, n: pd.array([None if i % 5 == 2 else i % 2 == 0 for i in range(n)], dtype="boolean"),
    "text": lambda rng, n: rng.choice(["a", "b", "ü", ""], n).astype(object),
    "text holes": lambda rng, n: np.array([None if i % 3 == 1 else "xyz"[i % 2] for i in range(n)], dtype=object),
    "category": lambda rng, n: pd.Categorical(rng.choice(["u", "v"], n), categories=["w", "v", "u"], ordered=True),
    "numbers as categories": lambda rng, n: pd.Categorical(rng.integers(0, 3, n)),
    "date": lambda rng, n: pd.Timestamp("2024-02-28") + pd.to_timedelta(rng.integers(0, 99, n), unit="D"),
    "zone": lambda rng, n: pd.date_range("2024-03-30", periods=n, freq="h", tz="Europe/Berlin"),
    "span": lambda rng, n: pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
    "days": lambda rng, n: np.array([datetime.date(2024, 2, 1 + i % 28) for i in range(n)], dtype=object),
    "decimal": lambda rng, n: np.array([decimal.Decimal(int(i)) / 4 for i in rng.integers(0, 9, n)], dtype=object),
    "constant": lambda rng, n: np.full(n, 7.5),
    "float32": lambda rng, n: rng.normal(size=n).astype("f4"),
    "zeros": lambda rng, n: np.where(rng.random(n) < 0.6, 0.0, rng.gamma(2.0, size=n)),
}
ODD_COLUMNS = {
    "missing": lambda rng, n: np.full(n, np.nan),
    "digits": lambda rng, n: np.array([HUGE + i for i in range(n)], dtype=object),
    "infinite": lambda rng, n: np.where(np.arange(n) == 1, -np.inf, 1.0),
    "beyond": lambda rng, n: np.full(n, 1e300) * rng.normal(size=n),
    "complex": lambda rng, n: rng.normal(size=n) + 1j,
    "mixed": lambda rng, n: np.array([1, "a"] * n, dtype=object)[:n],
    "lists": lambda rng, n: pd.Series([[i] for i in range(n)]),
    "intervals": lambda rng, n: pd.interval_range(0, n),
    "periods": lambda rng, n: pd.period_range("2024-01", periods=n, freq="M"),
    "first day": lambda rng, n: np.array([datetime.datetime(1, 1, 1)] * n, dtype=object),
}


@st.composite
def frames(draw, odd=True, containers=("pandas", "pandas", "polars", "rows", "objects")):
    """Tables of mixed columns: DataFrames of pandas and polars, lists of rows, arrays of objects."""
    n = draw(st.sampled_from([2, 3, 8, 12]))
    known = {**COLUMNS, **(ODD_COLUMNS if odd and draw(st.integers(0, 3)) == 0 else {})}
    names = draw(st.lists(st.sampled_from(list(known)), min_size=1, max_size=4, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 50)))
    table = pd.DataFrame({name: known[name](rng, n) for name in names})
    kind = draw(st.sampled_from(containers))
    try:
        if kind == "polars" and "digits" not in names:  # of which polars makes errors that nobody can catch
            return pl.DataFrame({name: [None if entry is pd.NA else entry for entry in table[name]] for name in table})
    except Exception:  # it does not go into polars
        return table
    if kind == "rows":
        return table.astype(object).to_numpy().tolist()
    return table.astype(object).to_numpy() if kind == "objects" else table


ODD_VALUES = [
    None, True, np.bool_(False), 0, 1, 2, -1, np.int8(2), np.uint64(3), 2**63, HUGE, -HUGE, 0.0, 0.5, 2.0, -0.5, 1e300,
    5e-324, float("nan"), float("inf"), np.float16(0.5), np.longdouble(1), np.array(2), np.array([1.0, 2.0]), 2j,
    decimal.Decimal(2), fractions.Fraction(5, 2), fractions.Fraction(HUGE, 3), "", "auto", "2", "x" * 5000, b"auto",
    [], [2], (0.5,), [HUGE], {}, {"a": 1}, {2}, len, int, object(), ..., pd.NA, pd.NaT, torch.tensor(2), np.random,
    torch.tensor(0.5), pd.Series([1, 2]), pl.Series([1]), datetime.date(2024, 2, 29), np.random.RandomState(0),
]  # fmt: skip
