"""FlowAnomalyDetector: learn what is normal, and measure how far other rows are from it, and where."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import OutlierMixin
from sklearn.utils.validation import check_is_fitted

from flowmatch import anomaly, fitting
from flowmatch.base import Estimator, Fitted
from flowmatch.core.checks import check_number
from flowmatch.generator import FlowMatchingGenerator
from flowmatch.preprocessing import SampleRows
from flowmatch.preprocessing.validation import check_samples
from flowmatch.tables.frames import numbers_like

Floats = NDArray[np.float64]


class FlowAnomalyDetector(OutlierMixin, Estimator):
    """Find rows, signals, images or fields that are unlike those of training.

    A flow learns the normal data; how far a row is from them is read off its velocity in one evaluation, off the
    row's neighbors, or off the path that the flow takes from it. The threshold comes from rows that were held out
    of training, so that the share of false alarms on new normal data is the one that was asked for.

    Parameters
    ----------
    network : {"auto", "mlp", "unet", "transformer"}, component or factory, default="auto"
        As in `FlowMatchingGenerator`.
    method : {"combined", "one_step", "latent", "likelihood", "neighbors", "denoising", "rebuilding", \
"reconstruction"} or Score, default="combined"
        What the anomaly score of a row is. "combined" joins the one-step residual with distances to neighbors in the
        data and among latent codes (for grids, with the latent norm) and ranked best over tables; "one_step" is the
        fastest. See `flowmatch.anomaly` for each.
    contamination : "auto" or float, default="auto"
        "auto": the training data are normal, and the threshold is set for `false_alarm_rate` on rows held out of
        training. A float in (0, 0.5]: that share of the training rows is flagged, as elsewhere in scikit-learn;
        nothing is held out then.
    false_alarm_rate : float, default=0.05
        With ``contamination="auto"``, the share of new normal rows that may be flagged. Setting it after a fit moves
        the threshold.
    n_folds : "auto" or int, default="auto"
        With ``contamination="auto"``, how rows are held out. 1: a random fifth (at most 1000), the flow is trained on
        the others. k > 1: k flows, each trained without one k-th of the rows, whose scores are averaged. "auto" takes
        5 for tables of less than 500 rows, and 1 for all else and for tables where a quarter of the rows repeat others
        because columns have few values; in these up to 99 rows, less than half of them, are left out.
    trim : float, default=0.0
        Robust training for data that hold outliers: this share of the training rows, those with the highest scores
        after a first training, is left out of a second one.
    references : {"rows", "drawn"}, default="rows"
        What new rows are compared with where a score searches for neighbors, and missing entries filled from. "rows":
        training rows, up to 2048 of which the fitted detector and its file therefore hold. "drawn": rows that the flow
        draws, so that no training row is kept; not for "reconstruction".
    [shared: path, coupling, source]
    time_sampler : {"auto", "uniform", "stratified", "u_shaped", "logit_normal", "data_emphasis", \
"noise_emphasis"} or TimeSampler, default="auto"
        How training times are drawn. "auto" takes "uniform": anomalies show near the data.
    [shared: loss, loss_weight]
    max_iter : int or None, default=None
        Optimizer steps of each flow. None takes those of `FlowMatchingGenerator`, but for tables 200 for each fold of
        less than 500 rows, and 300 with a float `contamination`: outliers are learned late.
    [shared: max_time, batch_size, learning_rate, training]
    preprocessing : {"auto", "standardize", "quantile", "minmax", "log1p", "none"} or ColumnTransform, default="auto"
        Scale on which rows are compared. "auto" takes "standardize", which keeps what is far away far away.
    [shared: categorical_features]
    unknown_categories : {"flag", "missing", "error"}, default="flag"
        What a category is that training has not seen: an anomaly, whose entry alone takes the row's score beyond those
        of normal rows; a missing entry, which says nothing; or an error. In `partial_fit`, "flag" is an error too.
    solver : str, default="midpoint"
        Solver of the scores that integrate the flow, as in `FlowMatchingGenerator`; read when `fit` is called.
    n_steps : int or None, default=None
        Steps of the fixed-step solvers. None takes 5.
    [shared: device]
    random_state : int, RandomState or None, default=None
        Seeds training and the choice of the held-out rows. Scores draw nothing: they are the same at every call.
    verbose : bool or int, default=0
        Show progress bars: of each flow, such as "flow 2 of 5", and of scores.
    [shared: warm_start]

    Attributes
    ----------
    flows_ : list of FlowMatchingGenerator
        The fitted flows, one or one a fold.
    offset_ : float
        Rows of a `score_samples` below it are flagged.
    calibration_ : Calibration or None
        Anomaly scores of the held-out rows; None with a float `contamination`.
    classes_ : ndarray of shape (n_classes,)
        Labels of the normal rows, if `y` held any.
    network_ : torch.nn.Module
        That of the first flow; so are `n_iter_`, `max_iter_`, `history_` and `n_parameters_`.
    sample_shape_ : tuple of int
        Shape of one sample: (d,) for a table. `n_features_in_` is its first entry.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Column names, if X had any that are strings.

    See Also
    --------
    sklearn.ensemble.IsolationForest, sklearn.neighbors.LocalOutlierFactor

    Examples
    --------
    >>> import numpy as np
    >>> from flowmatch import FlowAnomalyDetector
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(1000, 1))
    >>> normal = np.hstack([x, x + 0.1 * rng.normal(size=(1000, 1))])
    >>> detector = FlowAnomalyDetector(random_state=0).fit(normal)
    >>> detector.predict([[1.0, 1.0], [1.0, -1.0]])
    array([ 1, -1])
    """

    component_names = MappingProxyType({**Estimator.component_names, "method": anomaly.SCORES})

    @anomaly.takes_old_names
    def __init__(
        self,
        network: Any = "auto",
        *,
        method: Any = "combined",
        contamination: str | float = "auto",
        false_alarm_rate: float = 0.05,
        n_folds: str | int = "auto",
        trim: float = 0.0,
        references: str = "rows",
        path: Any = "linear",
        coupling: Any = "independent",
        source: Any = "normal",
        time_sampler: Any = "auto",
        loss: Any = "l2",
        loss_weight: Any = "uniform",
        max_iter: int | None = None,
        max_time: float | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        training: Any = None,
        preprocessing: Any = "auto",
        categorical_features: Any = "auto",
        unknown_categories: str = "flag",
        solver: str = "midpoint",
        n_steps: int | None = None,
        device: Any = "auto",
        random_state: Any = None,
        verbose: bool | int = 0,
        warm_start: bool = False,
    ) -> None:
        self.network = network
        self.method = method
        self.contamination = contamination
        self.false_alarm_rate = false_alarm_rate
        self.n_folds = n_folds
        self.trim = trim
        self.references = references
        self.path = path
        self.coupling = coupling
        self.source = source
        self.time_sampler = time_sampler
        self.loss = loss
        self.loss_weight = loss_weight
        self.max_iter = max_iter
        self.max_time = max_time
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.training = training
        self.preprocessing = preprocessing
        self.categorical_features = categorical_features
        self.unknown_categories = unknown_categories
        self.solver = solver
        self.n_steps = n_steps
        self.device = device
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    fitted_: anomaly.FittedDetector
    network_, n_parameters_ = Fitted("model.network"), Fitted("model.n_parameters")
    n_iter_, max_iter_, history_ = Fitted("flow.n_iter"), Fitted("flow.max_iter"), Fitted("flow.history")
    sample_shape_, n_features_in_ = Fitted("model.sample_shape"), Fitted("model.n_features")
    feature_names_in_, calibration_ = Fitted("model.feature_names"), Fitted("calibration")

    @property
    def flows_(self) -> list[FlowMatchingGenerator]:
        """The fitted flows."""
        return [_as_generator(member.flow) for member in self.fitted_.members]

    @property
    def classes_(self) -> NDArray[Any]:
        """Labels of the normal rows; an AttributeError if there were none."""
        if self.fitted_.classes is None:
            raise AttributeError("this detector was fitted without classes.")
        return self.fitted_.classes

    @property
    def offset_(self) -> float:
        """Rows of a lower `score_samples` are flagged, by the `false_alarm_rate` that is set now."""
        return self.fitted_.offset_at(anomaly.check_rate(self.false_alarm_rate))

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Learn what is normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or (n_samples, n_channels, *grid)
            As in `FlowMatchingGenerator.fit`, tables of text, categories, booleans, dates and missing entries included.
            Normal rows; or, with a float `contamination`, rows that hold outliers.
        y : array-like of shape (n_samples,), optional
            Classes of the normal rows (operating points, products), not their anomalies: each class is learned as
            such, and a row's score is that under the class that suits it best.
        sample_weight : array-like of shape (n_samples,), optional
            Weights of the rows; rows of weight 0 are left out.
        groups : array-like of shape (n_samples,), optional
            Labels of the records (machines, runs) that rows come from, which are held out as a whole, or in blocks
            where there are less than five. Overlapping windows of signals are found, with a warning.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For bad parameters or data, before training starts and with whatever was fitted left as it was.
        NonFiniteTrainingError
            If the loss or its gradient becomes non-finite; the detector is left as it was.
        """
        return self._fit(X, y, sample_weight, groups, getattr(self, "fitted_", None) if self.warm_start else None)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Go on with `max_iter` more steps on new normal rows, for data that drift.

        The first call is a `fit`. Later ones go on from the fitted weights and scaling, and need at least as many rows
        as there are flows, and three. The oldest leave the rows searched for neighbors and the held-out scores.

        Parameters
        ----------
        X, y, sample_weight, groups : as in `fit`, of the same columns and classes

        Returns
        -------
        self

        Raises
        ------
        ValueError
            As `fit`, and for another `method`, network, path or kind of `contamination` than in the fit before.
        """
        return self._fit(X, y, sample_weight, groups, getattr(self, "fitted_", None))

    def _fit(self, X: Any, y: Any, sample_weight: Any, groups: Any, start: anomaly.FittedDetector | None) -> Self:
        settings = anomaly.resolve_detector(self)
        if start is None:
            reader = type(self)(**self.get_params(deep=False))  # what is read of X may not reach what is fitted
            rows = fitting.read_rows(reader, X, y, sample_weight, self.categorical_features, "text")
        else:
            start.check_goes_on(settings)
            unknown = "missing" if self.unknown_categories == "missing" else "error"
            rows = fitting.Rows.weighted(self._rows_like_fit(X, 2, unknown), start.container, y, sample_weight)
        anomaly.fit_and_keep(self, settings, rows, sample_weight, start, watch=_as_generator, groups=groups)
        return self

    def _rows_like_fit(self, X: Any, min_samples: int = 1, unknown: str | None = None) -> SampleRows:
        """Rows like those of `fit`; entries of a table may be missing, and categories unknown."""
        unknown = unknown or self.unknown_categories
        checks: dict[str, Any] = {"missing": True, "unknown": "error" if unknown == "error" else "flag"}
        rows = check_samples(self, X, reset=False, min_samples=min_samples, container=self.fitted_.container, **checks)
        return self.fitted_.without_unseen(rows) if unknown == "missing" else rows

    def score_samples(self, X: Any) -> Floats:
        """How normal each row is; the negative of the anomaly score.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of shape (n_samples,)
            Higher is more normal; the unit is that of the score: see `flowmatch.anomaly`. A row's does not depend on
            the others. Entries of a table may be missing, also where none was in training: the others are seen beside
            what was to be expected there (`flowmatch.anomaly.Gaps`), and it adds what it adds to a normal row's score.

        Raises
        ------
        ValueError
            For rows of another shape or other columns than in training, infinity, NaN in grids, and categories that
            training has not seen with ``unknown_categories="error"``; so do the methods below.
        sklearn.exceptions.NotFittedError
            Before `fit`.
        """
        check_is_fitted(self)
        return -self.fitted_.scores(self._rows_like_fit(X), self.verbose)

    def score(self, X: Any, y: Any = None) -> float:
        """Mean of ``score_samples(X)``.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        y : ignored

        Returns
        -------
        float
        """
        return float(np.mean(self.score_samples(X)))

    def decision_function(self, X: Any) -> Floats:
        """``score_samples(X) - offset_``: negative for rows that are flagged.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of shape (n_samples,)
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """-1 for rows that are flagged as anomalies, 1 for the others.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        ndarray of int of shape (n_samples,)
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def p_values(self, X: Any, random_state: Any = None) -> Floats:
        """Conformal p-values: how often a normal row is as abnormal as each row of X.

        Of new normal rows, a share of at most alpha has a p-value of at most alpha, on average over fits, as far as
        `flowmatch.anomaly.Calibration` says, and less where rows share scores, as in tables of few values.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        random_state : int, RandomState, Generator or None, default=None
            None draws nothing. Else a row's rank among equal scores is drawn, each row's by itself, so that p-values
            of normal rows are uniform, ties or not (smoothed conformal predictors; Vovk et al., 2005, section 2.4).

        Returns
        -------
        ndarray of shape (n_samples,)
            Without `random_state`, at least ``1 / (1 + number of held-out rows)``.

        Raises
        ------
        ValueError
            If no rows were held out; the two methods below likewise.
        """
        check_is_fitted(self)
        self.fitted_.calibrated_for("p_values need", self.contamination)
        return self.fitted_.p_values(-self.score_samples(X), random_state)

    def select(self, X: Any, fdr: float = 0.1) -> NDArray[np.bool_]:
        """Which rows of X, all looked at together, to report as anomalies, so that few reports are false.

        The procedure of Benjamini and Hochberg (1995) on `p_values`: of the reported rows, an expected share of at
        most `fdr` is normal. That holds for one split without weights, if normal rows of X are independent and like
        those held out: p-values by the same held-out rows depend on each other positively (Bates et al., 2023,
        *Testing for outliers with conformal p-values*, theorem 2). For folds there is no proof.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)
        fdr : float, default=0.1

        Returns
        -------
        ndarray of bool of shape (n_samples,)
            True for rows to report.
        """
        fdr = check_number("fdr", fdr, 0.0, 1.0, open_low=True)
        return self.fitted_.select(self.p_values(X), fdr)

    def false_alarm_bound(self, confidence: float = 0.95) -> float:
        """The false alarm rate that this detector, as it was fitted, does not exceed with that confidence.

        `false_alarm_rate` holds on average over fits; the rate of one depends on the rows it held out. With one split
        of independent rows, a share of `confidence` of all fits has a rate of at most this bound, and more do with
        ties: exact as far as `p_values` are. With folds, weights or `partial_fit` it is an approximation without
        proof, for folds a cautious one; see `flowmatch.anomaly.Calibration.bound`.

        Parameters
        ----------
        confidence : float, default=0.95

        Returns
        -------
        float
        """
        check_is_fitted(self)
        calibration = self.fitted_.calibrated_for("false_alarm_bound needs", self.contamination)
        confidence = check_number("confidence", confidence, 0.0, 1.0, open_low=True)
        return calibration.bound(anomaly.check_rate(self.false_alarm_rate), confidence, len(self.fitted_.members))

    def explain(self, X: Any) -> Any:
        """How much each feature, channel and instant adds to a row's anomaly score.

        Parameters
        ----------
        X : as in `fit`, of shape (n_samples, *sample_shape)

        Returns
        -------
        contributions : DataFrame, torch tensor or ndarray, like X
            They add up to the row's anomaly score, ``-score_samples(X)``; a missing entry adds what it adds to a
            normal row's.
        """
        check_is_fitted(self)
        found = np.concatenate(list(self.fitted_.contributions(self._rows_like_fit(X), self.verbose)))
        return numbers_like(X, found)

    def set_params(self, **params: Any) -> Self:
        """Set parameters; see `FlowMatchingGenerator.set_params`. Another `false_alarm_rate` moves the threshold.

        Parameters
        ----------
        **params : dict
            New values by name, ``method__n_neighbors`` for one of a component.

        Returns
        -------
        self : estimator instance
        """
        super().set_params(**anomaly.with_new_names(params))
        rate, calibration = params.get("false_alarm_rate"), getattr(self, "calibration_", None)
        if isinstance(rate, float) and calibration is not None:
            anomaly.warn_of_few_held_out(calibration, rate)
        return self

    def check_parameters(self) -> None:
        """Raise a ValueError that names the first parameter which is out of its range."""
        anomaly.resolve_detector(self)


def _as_generator(flow: fitting.FitResult) -> FlowMatchingGenerator:
    """A flow of a detector as an estimator of its own."""
    return FlowMatchingGenerator.from_fitted(flow, **flow.parameters, condition_dropout=0.0, masked_share=0.0)
