"""All measures of an ensemble forecast at once, over all lead times and at each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from flowmatch.core.checks import check_number
from flowmatch.metrics._ensembles import Values, as_forecast, as_members
from flowmatch.metrics._samples import FloatArray, Samples
from flowmatch.metrics._text import aligned
from flowmatch.metrics.calibration import interval_coverage, spread_skill
from flowmatch.metrics.energy import energy_score
from flowmatch.metrics.forecasts import crps, nrmse, skill_score
from flowmatch.metrics.spectra import correlation_time, high_wavenumber_ratio, pattern_correlation, spectrum_error

if TYPE_CHECKING:
    import pandas as pd

_BETTER = {
    **dict.fromkeys(("nrmse", "crps", "energy_score", "spectrum_error"), "lower"),
    **dict.fromkeys(("correlation", "correlation_time"), "higher"),
    **dict.fromkeys(("spread_skill", "high_wavenumber_ratio"), "near 1"),
    "coverage": "near {coverage:g}",
    "crps_skill": "higher, 0 is the reference",
}
_LEADS_SHOWN = 5


@dataclass(frozen=True, repr=False)
class ForecastReport:
    """Result of `forecast_report`; prints as a table.

    Parameters
    ----------
    measures : dict of str to float
        Values over all rows and lead times, by name.
    leads : dict of str to ndarray of shape (n_steps,)
        The same at each lead time; empty unless they were asked for.
    lead_times : ndarray of shape (n_steps,)
        Times of these; empty if `leads` is.
    n_rows : int
        Number of forecasts.
    n_samples : int
        Members of each.
    coverage : float
        Share of true values that intervals were made to hold.
    """

    measures: dict[str, float]
    leads: dict[str, FloatArray] = field(default_factory=dict)
    lead_times: FloatArray = field(default_factory=lambda: np.empty(0))
    n_rows: int = 0
    n_samples: int = 0
    coverage: float = 0.9

    def __repr__(self) -> str:
        """Lay the report out as a table, with some of the lead times."""
        n = len(self.lead_times)
        shown = sorted({round(i) - 1 for i in np.geomspace(1, n, _LEADS_SHOWN)}) if n else []
        rows = [["measure", "all", *(f"lead {self.lead_times[i]:g}" for i in shown), "better"]]
        for name, value in self.measures.items():
            values = [f"{self.leads[name][i]:.4f}" if name in self.leads else "" for i in shown]
            rows.append([name, f"{value:.4f}", *values, _BETTER[name].format(coverage=self.coverage)])
        head = f"Ensembles of {self.n_samples} members for {self.n_rows} rows.\n"
        return head + aligned(rows, left=(0, len(shown) + 2))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain dicts, lists and numbers.

        Returns
        -------
        dict
            The fields of the report by name, ready for `json.dump`.
        """
        leads = {name: values.tolist() for name, values in self.leads.items()}
        return asdict(self) | {"leads": leads, "lead_times": self.lead_times.tolist()}

    def to_frame(self) -> pd.DataFrame:
        """Convert to a pandas DataFrame.

        Returns
        -------
        pandas.DataFrame
            A column a measure; a row a lead time, or a single one, "all".
        """
        import pandas as pd

        if self.leads:
            return pd.DataFrame(self.leads, index=pd.Index(self.lead_times, name="lead_time"))
        return pd.DataFrame(self.measures, index=["all"])


def forecast_report(
    y_true: Samples,
    samples: Samples,
    *,
    y_reference: Samples | None = None,
    per_lead: bool = False,
    interval: float = 1.0,
    coverage: float = 0.9,
    scale: ArrayLike | None = None,
    grid_ndim: int | None = None,
    lengths: ArrayLike | None = None,
) -> ForecastReport:
    """Measure an ensemble forecast in every way.

    Parameters
    ----------
    y_true : array-like or tensor of shape (n, ...)
        The truth; of shape (n, n_steps, ...) for rollouts.
    samples : array-like or tensor of shape (n_samples, n, ...)
        The ensemble, members first: two at least, and as many as intervals of that coverage need, 19 for 90 %.
    y_reference : array-like or tensor of shape (n, ...) or (m_samples, n, ...), optional
        A forecast to beat, such as persistence, single values or an ensemble; adds the measure "crps_skill".
    per_lead : bool, default=False
        Whether axis 1 of y_true is the lead time, at each of which the measures are taken too.
    interval : float, default=1.0
        Time between two states of a rollout: the first lead time, and the unit of "correlation_time".
    coverage : float, default=0.9
        See `interval_coverage`.
    scale : float or array-like, optional
        See `nrmse`.
    grid_ndim : {1, 2, 3}, optional
        For fields, how many of the last axes are the grid; adds "spectrum_error" and "high_wavenumber_ratio".
    lengths : sequence of floats, optional
        Sides of the box, see `spectrum`.

    Returns
    -------
    ForecastReport
        Prints as a table; ``measures`` and ``leads``, `to_dict` and `to_frame` return them. "nrmse",
        "correlation" (of states of two values or more) and "correlation_time" are those of the ensemble's mean, and
        "spread_skill" is the ratio of spread and error. Over all lead times, "energy_score" and "correlation" are those
        of rollouts as a whole.

    Raises
    ------
    ValueError
        If the shapes do not fit, values are not finite, there are too few members, or a parameter is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch.metrics import forecast_report
    >>> rng = np.random.default_rng(0)
    >>> walks = rng.normal(size=(21, 500, 6)).cumsum(axis=-1)  # one for the truth, 20 for the ensemble
    >>> forecast_report(walks[0], walks[1:], y_reference=0 * walks[0], per_lead=True, interval=0.5)
    Ensembles of 20 members for 500 rows.
    measure                     all   lead 0.5     lead 1     lead 2     lead 3   better
    nrmse                    1.0305     0.5562     0.7594     1.0839     1.3602   lower
    crps                     0.9819     0.5531     0.7557     1.0739     1.3270   lower
    energy_score             1.1219     0.5531     0.7557     1.0739     1.3270   lower
    coverage                 0.9083     0.9020     0.9120     0.9160     0.9180   near 0.9
    spread_skill             1.0311     1.0245     1.0628     1.0515     1.0174   near 1
    crps_skill               0.2944     0.3040     0.3102     0.3025     0.2795   higher, 0 is the reference
    """
    truth, members = as_forecast(y_true, samples, min_members=2, why=" to be an ensemble")
    check_number("interval", interval, 0.0, open_low=True)
    mean = members.mean(axis=0, dtype=np.float64)
    taken: dict[str, Callable[..., Values]] = {
        "nrmse": partial(nrmse, truth, mean, scale),
        "crps": partial(crps, truth, members),
        "energy_score": partial(energy_score, truth, members),
        "coverage": partial(interval_coverage, truth, members, coverage),
        "spread_skill": lambda per_lead: spread_skill(truth, members, per_lead=per_lead).ratio,
    }
    if y_reference is not None:
        reference = as_members(y_reference, "y_reference", truth)
        naive = partial(crps, truth, reference, fair=len(reference) > 1)
        taken["crps_skill"] = lambda per_lead: skill_score(taken["crps"](per_lead=per_lead), naive(per_lead=per_lead))
    if truth[0, 0].size > 1 if per_lead else truth[0].size > 1:
        taken["correlation"] = partial(pattern_correlation, truth, mean)
    if grid_ndim is not None:
        taken["spectrum_error"] = partial(spectrum_error, truth, members, grid_ndim, lengths=lengths)
        taken["high_wavenumber_ratio"] = partial(high_wavenumber_ratio, truth, members, grid_ndim, lengths=lengths)

    measures = {name: float(take(per_lead=False)) for name, take in taken.items()}
    leads = {name: np.asarray(take(per_lead=True)) for name, take in taken.items()} if per_lead else {}
    if "correlation" in leads:
        measures["correlation_time"] = correlation_time(truth, mean, interval=interval)
    times = interval * np.arange(1, truth.shape[1] + 1) if per_lead else np.empty(0)
    return ForecastReport(measures, leads, times, len(truth), len(members), coverage)
