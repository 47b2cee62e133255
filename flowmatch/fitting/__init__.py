"""From data and parameters to one fitted `flowmatch.model.FlowModel`."""

from flowmatch.fitting.announcements import announce, chosen, warn_of_few
from flowmatch.fitting.fit_flow import Watch, carry_out, fit_and_assign, fit_flow, held_out_rows, with_seed
from flowmatch.fitting.results import FitResult, InterruptedFit
from flowmatch.fitting.rows import Rows, read_rows, read_rows_like, rows_like_fit, rows_to_fill, rows_to_keep_from
from flowmatch.fitting.schedule import Schedule, as_asked, schedule_of
from flowmatch.fitting.settings import (
    ALIASES,
    FitSettings,
    budget_of,
    resolve_network,
    resolve_options,
    resolve_settings,
    resolve_transform,
)
from flowmatch.fitting.tasks import FlowTask, condition_rows_of, row_task, row_task_from, training_rows_of
from flowmatch.fitting.training_data import EntryMasks, RowData, TrainingData
