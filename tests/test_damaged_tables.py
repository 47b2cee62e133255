"""Files of models of mixed tables: what is damaged is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from damaged_files import setting, tamper, tensor, without

import flowmatch
from flowmatch import FlowMatchingGenerator
from flowmatch.networks import MLP

N = 40
TABLE = ("encoder", "container", "table")


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The file of a model that knows labels, categories, dates and missing cells."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "size": np.where(rng.random(N) < 0.3, np.nan, rng.normal(size=N)),
            "kind": pd.Series(["a", "b", "c", None] * (N // 4), dtype=object),
            "flag": np.arange(N) % 3 == 0,
            "day": pd.date_range("2024-01-01", periods=N),
        }
    )
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    model = FlowMatchingGenerator(MLP(width=8, depth=1), max_iter=2, n_steps=2, random_state=0)
    model.fit(frame, np.arange(N) % 2).save(path)
    return path.read_bytes()


DAMAGES = {
    "no_has_cells": (without("has_cells"), "'has_cells' is missing"),
    "has_cells_type": (setting("yes", "has_cells"), "has_cells"),
    "has_no_cells": (setting(False, "has_cells"), "do not fit together"),
    "no_patterns": (without("patterns"), "'patterns' is missing"),
    "patterns_field": (without("patterns", "rows"), "do not fit together"),
    "patterns_width": (tensor("patterns.patterns", torch.zeros(2, 9, dtype=torch.bool)), "patterns of missing cells"),
    "patterns_dtype": (tensor("patterns.patterns", torch.zeros(4, 6)), "patterns"),
    "patterns_beyond": (tensor("patterns.rows", torch.full((N,), 99)), "patterns"),
    "patterns_shares": (tensor("patterns.shares", torch.ones(3, dtype=torch.float64)), "patterns of missing cells"),
    "patterns_share_of_nothing": (tensor("patterns.shares", torch.full((N,), torch.nan, dtype=torch.float64)), "patterns"),
    "patterns_vectors": (tensor("patterns.vectors", torch.zeros(N, 3)), "patterns of missing cells"),
    "no_categories": (setting(None, "encoder", "categories"), "categories"),
    "categories_one_less": (setting([3], "encoder", "categories", "n_levels"), "categories"),
    "categories_of_other_sizes": (setting([2, 3], "encoder", "categories", "n_levels"), "categories"),
    "categories_type": (setting(["3", 2], "encoder", "categories", "n_levels"), "categories"),
    "shares_shape": (tensor("categories.shares", torch.ones(4, dtype=torch.float64)), "categories"),
    "shares_negative": (tensor("categories.shares", -torch.ones(5, dtype=torch.float64)), "categories"),
    "is_category_moved": (tensor("encoder.is_category", torch.tensor([True, True, False, False])), "categories"),
    "is_category_dtype": (tensor("encoder.is_category", torch.ones(4)), "categories"),
    "no_table": (without(*TABLE), "do not fit together|table|categories"),
    "table_field": (without(*TABLE, "kinds"), "table"),
    "table_kind": (setting("magic", *TABLE, "kinds", 0), "table"),
    "table_other_kind": (setting("number", *TABLE, "kinds", 1), "categories"),
    "table_width": (setting([], *TABLE, "levels"), "table"),
    "table_levels": (setting({"list": ["a", "b"], "dtype": "object"}, *TABLE, "levels", 1), "categories"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_refused(content, tmp_path, damage):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert flowmatch.load(path).sample(2, random_state=0).shape == (2, 4)
    change, message = DAMAGES[damage]
    tamper(path, change)
    with pytest.raises(ValueError, match=message):
        flowmatch.load(path)
