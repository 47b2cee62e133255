"""Forecasts of next states: windows of trajectories, tables as contexts, ensembles."""

from flowmatch.forecasting.adaptive import adaptive_shares
from flowmatch.forecasting.backtest import Backtest, backtest
from flowmatch.forecasting.conformal import Conformal
from flowmatch.forecasting.density import DENSITY_STEPS, score_windows
from flowmatch.forecasting.ensembles import Ensemble
from flowmatch.forecasting.fitted import FittedForecaster
from flowmatch.forecasting.frames import as_frame, check_output_format
from flowmatch.forecasting.intervals import adaptive_interval, calibrate, conformal_interval, updated
from flowmatch.forecasting.layout import Layout
from flowmatch.forecasting.parameters import check_coverage, check_forecast_parameters, check_quantiles
from flowmatch.forecasting.reading import Reading, contexts_like_fit, read_windows, windows_like_fit
from flowmatch.forecasting.spread import with_unseen_spread
from flowmatch.forecasting.tables import TableReader
from flowmatch.forecasting.tasks import (
    announce_forecaster,
    forecast_task,
    forecast_task_from,
    schedule_of_forecasts,
    training_windows_of,
)
