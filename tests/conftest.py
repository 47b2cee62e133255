import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _one_thread_for_small_tensors():
    torch.set_num_threads(1)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
