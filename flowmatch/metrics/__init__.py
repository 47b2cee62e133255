"""How near are generated samples to real ones? Measures between two samples, and a report that puts them side by side.

Every measure takes array-likes, tensors or DataFrames of numbers, (n, d) or (n, ...), and gives back floats. A value
says little alone: compare it with its floor, the same measure between two sets of real rows, as `report` does.
`straightness` is another thing: a measure of the paths that samples take.
"""

from flowmatch.metrics.copies import CopyCheck, copy_check
from flowmatch.metrics.energy import energy_distance
from flowmatch.metrics.fidelity import PRDC, precision_recall_density_coverage
from flowmatch.metrics.sample_report import SampleReport, report
from flowmatch.metrics.straightness import straightness
from flowmatch.metrics.transport import sliced_wasserstein, wasserstein
from flowmatch.metrics.two_sample import classifier_two_sample_test

__all__ = [
    "PRDC",
    "CopyCheck",
    "SampleReport",
    "classifier_two_sample_test",
    "copy_check",
    "energy_distance",
    "precision_recall_density_coverage",
    "report",
    "sliced_wasserstein",
    "straightness",
    "wasserstein",
]
