"""Displays of samples and of training, in the manner of scikit-learn's; matplotlib is imported when they plot.

They need ``pip install 'flowmatch[plot]'``.
"""

from flowmatch.plotting.curves import TrainingCurveDisplay
from flowmatch.plotting.pictures import SampleGridDisplay
from flowmatch.plotting.signals import SignalGridDisplay

__all__ = ["SampleGridDisplay", "SignalGridDisplay", "TrainingCurveDisplay"]
