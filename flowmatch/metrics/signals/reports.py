"""All measures of synthetic signals at once, each beside its floor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from flowmatch.core.checks import check_choice, check_count, check_number
from flowmatch.core.randomness import seed_from
from flowmatch.core.types import Array, Index
from flowmatch.core.user_warnings import warn
from flowmatch.datasets import Bearing, find_bearing
from flowmatch.metrics._samples import RandomState, Samples
from flowmatch.metrics._sides import MIN_ROWS, Sides, cut
from flowmatch.metrics._text import columns_table, measures_table
from flowmatch.metrics.fidelity import precision_recall_density_coverage
from flowmatch.metrics.frechet import frechet_distance
from flowmatch.metrics.signals.copies import correlations
from flowmatch.metrics.signals.envelopes import Limits, energy_at, envelope_distance, limited_envelope
from flowmatch.metrics.signals.features import RandomConvolutions, shape_statistics, statistic_distances
from flowmatch.metrics.signals.spectra import (
    autocorrelation_distance,
    coherence_distance,
    log_spectral_distance,
    log_spectrum,
    power_spectrum,
    spectral_convergence,
)
from flowmatch.metrics.two_sample import classifier_two_sample_test
from flowmatch.preprocessing.signal_arrays import as_signals

if TYPE_CHECKING:
    import pandas as pd

N_KERNELS, N_DIRECTIONS, N_LAGS = 200, 12, 64
MAX_SEARCHED = 200
"""Windows a side in which copies are looked for."""
ALIKE, A_COPY = 0.95, 0.99
"""The quantile of the floor's correlations above which a window counts as copied; what overlapping windows have."""


@dataclass(frozen=True, repr=False)
class SignalReport:
    """Result of `signal_report`; prints as tables.

    Parameters
    ----------
    measures : dict
        ``measures[name]["synthetic"]`` is the value of synthetic against real windows, ``measures[name]["floor"]`` that
        of real against real windows.
    channels : dict
        ``channels[channel][statistic]["real"]`` and ``["synthetic"]``: means over windows.
    n_compared : int
        Windows a side that the measures were taken on.
    floor : str
        What the floor is: "held-out windows" or "the other half of the real windows".
    """

    measures: dict[str, dict[str, float]]
    channels: dict[str, dict[str, dict[str, float]]]
    n_compared: int
    floor: str

    def __repr__(self) -> str:
        """Lay the report out as tables."""
        head = f"Synthetic against real, {self.n_compared} windows a side; floor: {self.floor} against real.\n\n"
        return head + measures_table(self.measures) + "\n\n" + columns_table(self.channels, head="channel")

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain dicts, numbers and strings.

        Returns
        -------
        dict
            The fields of the report by name, ready for `json.dump`.
        """
        return asdict(self)

    def to_frame(self, part: str = "measures") -> pd.DataFrame:
        """Convert one part of the report to a pandas DataFrame.

        Parameters
        ----------
        part : {"measures", "channels"}, default="measures"
            * "measures": one row a measure, columns "synthetic" and "floor".
            * "channels": one row a channel, and for each statistic a pair of columns (statistic, "real") and
              (statistic, "synthetic").

        Returns
        -------
        pandas.DataFrame
            With the rows and columns above.

        Raises
        ------
        ValueError
            If `part` is none of them.
        """
        check_choice("part", part, ("measures", "channels"))
        import pandas as pd

        if part == "measures":
            return pd.DataFrame.from_dict(self.measures, orient="index")
        return pd.concat({name: pd.DataFrame(channel).unstack() for name, channel in self.channels.items()}, axis=1).T


def signal_report(
    real: Samples,
    synthetic: Samples,
    fs: float,
    rpm: Any = None,
    bearing: Bearing | str | None = None,
    holdout: Samples | None = None,
    *,
    band: Limits | None = None,
    max_rows: int = 500,
    random_state: RandomState = 0,
) -> SignalReport:
    """Compare synthetic signals with real ones on every measure, each beside its floor.

    The floor is what the measure gives for real windows in the place of the synthetic ones, at the same number of
    windows. Without `holdout` the real windows are cut into two random halves, one to compare with and one for the
    floor. Compare the windows of one class at a time: a mean spectrum of several says little.

    Parameters
    ----------
    real : array-like or tensor of shape (n, n_channels, n_times)
        The windows that the generator was fitted on.
    synthetic : array-like or tensor of shape (m, n_channels, n_times)
        Its samples.
    fs : float
        Sampling rate, in hertz.
    rpm : float or sequence, optional
        Speed of the shaft, turns per minute: one, or a sequence ``(rpm_real, rpm_synthetic)`` or ``(rpm_real,
        rpm_synthetic, rpm_holdout)`` of numbers or arrays with a speed a window. With `bearing` only.
    bearing : Bearing or str, optional
        Adds the energies at its fault frequencies, for which `rpm` is needed; a `flowmatch.datasets.Bearing` or the
        name of one of `flowmatch.datasets.BEARINGS`.
    holdout : array-like or tensor of shape (h, n_channels, n_times), optional
        Real windows that the generator has not seen, of another stretch of the record than `real`.
    band : (float, float), optional
        Frequencies of the resonance that envelopes are taken around, in hertz; see `envelope_spectrum`.
    max_rows : int, default=500
        Windows a side at most; copies are looked for in 200 of them, among all real windows.
    random_state : int, Generator, RandomState or None, default=0
        Seeds the cuts, the convolutions and the classifiers.

    Returns
    -------
    SignalReport
        Prints as tables; `to_dict` and `to_frame` return its values. 500 windows of 1024 values a side take about 20 s.

    Raises
    ------
    ValueError
        If the samples are no signals of the same channels and lengths, are not finite, or are too few: 6 windows a side
        are the least, 12 real ones without `holdout`; if only one of `rpm` and `bearing` is given.

    Warns
    -----
    UserWarning
        If real windows hold pieces of each other, as overlapping ones do: copies are then not told from them.

    See Also
    --------
    flowmatch.plotting.SignalReportDisplay : Waveforms, spectra and envelope spectra, real beside synthetic.

    Notes
    -----
    Beside the measures that are functions of this module:

    * frechet_convolutions, frechet_spectrum: `frechet_distance` of `RandomConvolutions` and of `log_spectrum`, both
      standardized by the real windows' mean and deviation and projected on their first 12 principal components (fewer
      for less than 36 windows).
    * precision, recall, density, coverage: `precision_recall_density_coverage` of these projected log-spectra.
    * rms_distance, skewness_distance, kurtosis_distance, crest_distance: `statistic_distances`.
    * bpfo_energy, bpfi_energy, bsf_energy, ftf_energy: the mean `fault_energy` of the synthetic windows over that of
      the real ones, at the frequencies at which defects strike: twice the spin frequency for "bsf". Frequencies of
      less than two periods a window are left out.
    * c2st_spectrum, c2st_convolutions: `classifier_two_sample_test` of log-spectra and convolutions.
    * copy_shift, copy_half: means of `window_copies`; copy_share: the share of windows whose "half" is above the 95 %
      quantile of the floor's.

    Spectra alone say little: signals of the right spectrum and random phases have the floor's spectral measures, and no
    impacts. Look at kurtosis_distance, envelope_distance and the energies beside them, and at copies.

    Examples
    --------
    >>> from flowmatch.datasets import make_bearing_signals
    >>> from flowmatch.metrics import signal_report
    >>> real, synthetic = (make_bearing_signals(40, faults="outer", random_state=seed).data for seed in (0, 1))
    >>> found = signal_report(real, 2 * synthetic, 12000, rpm=1797, bearing="6205")  # print(found) shows it all
    >>> print(found.to_frame().loc[["log_spectral_distance", "kurtosis_distance", "bpfo_energy"]].round(1))
                           synthetic  floor
    log_spectral_distance        6.0    0.2
    kurtosis_distance            0.3    0.3
    bpfo_energy                  1.0    1.0
    """
    check_count("max_rows", max_rows, MIN_ROWS)
    check_number("fs", fs, 0.0, open_low=True)
    named = {"real": real, "synthetic": synthetic} | ({} if holdout is None else {"holdout": holdout})
    samples = {name: as_signals(X, name) for name, X in named.items()}
    for name, signals in samples.items():
        if signals.shape[1:] != samples["real"].shape[1:]:
            raise ValueError(f"real is {samples['real'].shape} and {name} {signals.shape}: other channels or lengths.")
    lines = _lines(rpm, bearing, samples, fs)
    rng = np.random.default_rng(seed_from(random_state))
    sides = cut({name: np.arange(len(signals)) for name, signals in samples.items()}, rng)
    n_compared = min(max_rows, *map(len, (sides.reference, sides.synthetic, sides.floor)))
    held_out = "holdout" if sides.held_out else "real"
    compared = [
        _Windows(samples[name], lines[name]).take(rows[:n_compared])
        for name, rows in (("real", sides.reference), ("synthetic", sides.synthetic), (held_out, sides.floor))
    ]
    comparison = _Comparison(compared[0], fs, band, int(rng.integers(2**31)))
    values, floors = (comparison(rows) for rows in compared[1:])
    for found, copies in zip((values, floors), _copies(samples, sides), strict=True):
        found |= copies
    return SignalReport(
        measures={name: {"synthetic": values[name], "floor": floors[name]} for name in values},
        channels=_statistics(comparison, *(_Windows(samples[name], lines[name]) for name in ("real", "synthetic"))),
        n_compared=n_compared,
        floor="held-out windows" if sides.held_out else "the other half of the real windows",
    )


class _Windows(NamedTuple):
    """Signals, and the frequencies at which faults strike in each of them, by name."""

    signals: Array
    lines: dict[str, Array]

    def take(self, rows: Index) -> _Windows:
        return _Windows(self.signals[rows], {name: line[rows] for name, line in self.lines.items()})


class _Comparison:
    """The measures of windows against the same real ones."""

    def __init__(self, real: _Windows, fs: float, band: Limits | None, seed: int) -> None:
        self.real, self.fs, self.band, self.seed = real, fs, band, seed
        self.convolutions = RandomConvolutions(N_KERNELS, random_state=seed).fit(real.signals)
        self.features = self._features(real.signals)
        self.energies = self.energy(real)

    def __call__(self, rows: _Windows) -> dict[str, float]:
        real, windows, fs = self.real.signals, rows.signals, self.fs
        pairs = list(zip(self.features, self._features(windows), strict=True))
        spectra, convolutions = (_projected(*pair) for pair in pairs)
        found = {
            "frechet_convolutions": frechet_distance(*convolutions),
            "frechet_spectrum": frechet_distance(*spectra),
            **precision_recall_density_coverage(*spectra)._asdict(),
            "log_spectral_distance": log_spectral_distance(real, windows, fs),
            "spectral_convergence": spectral_convergence(real, windows),
            "envelope_distance": envelope_distance(real, windows, fs, band=self.band),
            "autocorrelation_distance": autocorrelation_distance(real, windows, n_lags=min(N_LAGS, real.shape[2] - 1)),
        }
        if real.shape[1] > 1:
            found["coherence_distance"] = coherence_distance(real, windows, fs)
        found |= {f"{name}_distance": value for name, value in statistic_distances(real, windows).items()}
        energies = self.energy(rows)
        found |= {name: float(energies[name].mean() / value.mean()) for name, value in self.energies.items()}
        for name, pair in zip(("c2st_spectrum", "c2st_convolutions"), pairs, strict=True):
            found[name] = classifier_two_sample_test(*pair, random_state=self.seed)
        return found

    def energy(self, rows: _Windows) -> dict[str, Array]:
        """Mean share of the energy of each channel's envelope at each of the fault frequencies."""
        if not rows.lines:
            return {}
        spectrum = limited_envelope(rows.signals, self.fs, self.band, None)
        resolution = self.fs / rows.signals.shape[2]
        return {
            f"{name}_energy": energy_at(spectrum, line, resolution).mean(axis=0) for name, line in rows.lines.items()
        }

    def _features(self, signals: Array) -> tuple[Array, Array]:
        return log_spectrum(signals, self.fs), self.convolutions.transform(signals)


def _projected(real: Array, rows: Array) -> tuple[Array, Array]:
    """Features on the first principal components of the real ones, which are standardized."""
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n_directions = min(N_DIRECTIONS, real.shape[1], len(real) // 3)
    projection = make_pipeline(StandardScaler(), PCA(n_directions, random_state=0)).fit(real)
    return projection.transform(real), projection.transform(rows)


def _copies(samples: dict[str, Array], sides: Sides) -> tuple[dict[str, float], dict[str, float]]:
    """Correlations of synthetic windows with the training windows, and those of real ones."""
    train = samples["real"][sides.train]
    synthetic = samples["synthetic"][sides.synthetic[:MAX_SEARCHED]]
    if sides.held_out:
        own, floor = None, samples["holdout"][sides.floor[:MAX_SEARCHED]]
    else:
        own = np.arange(len(sides.reference), len(train))[:MAX_SEARCHED]
        floor = train[own]
    found = [correlations(train, synthetic), correlations(train, floor, own)]
    limit = np.quantile(found[1].half, ALIKE)
    if np.median(found[1].half) > A_COPY:
        warn(
            "real windows hold pieces of each other, as overlapping windows do: copies among the synthetic ones are "
            "not told from them. Pass windows that do not overlap, or holdout from another stretch of the record."
        )
    values, floors = (
        {
            "copy_shift": float(copies.shift.mean()),
            "copy_half": float(copies.half.mean()),
            "copy_share": float((copies.half > limit).mean()),
        }
        for copies in found
    )
    return values, floors


def _statistics(comparison: _Comparison, real: _Windows, synthetic: _Windows) -> dict[str, dict[str, dict[str, float]]]:
    """Means of the statistics of each channel, where its spectra peak, and its energies at fault frequencies."""
    fs, band = comparison.fs, comparison.band
    found: dict[str, dict[str, dict[str, float]]] = {}
    for side, rows in (("real", real), ("synthetic", synthetic)):
        means = {name: values.mean(axis=0) for name, values in shape_statistics(rows.signals).items()}
        spectra = {"peak_hz": power_spectrum(rows.signals, fs)}
        spectra["envelope_hz"] = limited_envelope(rows.signals, fs, band, None)
        for name, (frequencies, values) in spectra.items():
            means[name] = frequencies[values.mean(axis=0).argmax(axis=-1)]
        for name, values in (means | comparison.energy(rows)).items():
            for channel, value in enumerate(values.tolist()):
                found.setdefault(str(channel), {}).setdefault(name, {})[side] = value
    return found


def _lines(rpm: Any, bearing: Any, samples: dict[str, Array], fs: float) -> dict[str, dict[str, Array]]:
    """The frequencies at which faults strike in every window of each sample, by name; none without a bearing."""
    if (rpm is None) != (bearing is None):
        raise ValueError(f"rpm and bearing are needed together, got rpm={rpm!r} and bearing={bearing!r}.")
    if bearing is None:
        return {name: {} for name in samples}
    of_samples = rpm if isinstance(rpm, (tuple, list)) else [rpm] * len(samples)
    if len(of_samples) != len(samples):
        raise ValueError(f"rpm must be one number or a sequence (rpm_{', rpm_'.join(samples)}), got {rpm!r}.")
    geometry, found = find_bearing(bearing), {}
    for (name, signals), speed in zip(samples.items(), of_samples, strict=True):
        speeds = np.asarray(speed, dtype=np.float64)
        if speeds.shape not in ((), (len(signals),)) or not (np.isfinite(speeds) & (speeds > 0)).all():
            raise ValueError(f"rpm of {name} must be positive, one or one for each of its {len(signals)} windows.")
        frequencies = geometry.fault_frequencies(np.broadcast_to(speeds, len(signals)))
        found[name] = frequencies | {"bsf": 2 * frequencies["bsf"]}
    least = 2 * fs / samples["real"].shape[2]
    seen = [name for name in found["real"] if all(lines[name].min() > least for lines in found.values())]
    return {name: {line: lines[line] for line in seen} for name, lines in found.items()}
