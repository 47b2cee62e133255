"""A small real table with keys, dates, categories and missing entries."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def load_penguins() -> pd.DataFrame:
    """Load 344 penguins of three islands near Palmer Station, Antarctica, observed from 2007 to 2009. Needs pandas.

    Returns
    -------
    DataFrame of shape (344, 10)
        Number of the record, species, island, date of the first egg, whether the clutch had two eggs, length and depth
        of the bill, length of the flippers, body mass, sex.

    References
    ----------
    Gorman, Williams and Fraser (2014). Ecological sexual dimorphism and environmental variability within a community of
    Antarctic penguins (genus Pygoscelis). PLoS ONE 9(3). Public domain (CC0), from the R package palmerpenguins (Horst,
    Hill and Gorman, 2020).

    Examples
    --------
    >>> from flowmatch.datasets import load_penguins
    >>> load_penguins()[["id", "species", "egg_date", "body_mass_g"]].head(2)
       id species   egg_date  body_mass_g
    0   1  Adelie 2007-11-11         3750
    1   2  Adelie 2007-11-11         3800
    """
    import pandas as pd

    whole = {"flipper_length_mm": "Int64", "body_mass_g": "Int64"}
    return pd.read_csv(Path(__file__).with_name("penguins.csv"), parse_dates=["egg_date"], dtype=whole)
