import itertools

import pytest
import torch
from grid_networks import normal

from flowmatch.networks.patches import patchify, unpatchify


@pytest.mark.parametrize("patch_size", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "shape", [(1, 1), (6, 8), (2, 7), (1, 1, 1), (6, 4, 6), (2, 5, 3), (1, 1, 9), (2, 4, 2, 6), (6, 3, 1, 7)], ids=str
)
def test_patches_go_back_to_exactly_the_grid_they_came_from(shape, patch_size):
    x, d = normal(3, *shape), len(shape) - 1
    patches = patchify(x, patch_size)
    coarse = [-(-size // patch_size) for size in shape[1:]]
    assert patches.shape == (3, shape[0] * patch_size**d, *coarse)
    assert torch.equal(unpatchify(patches, patch_size, shape[1:]), x)


@pytest.mark.parametrize("grid", [(6,), (4, 6), (2, 4, 6), (5,), (3, 5), (1, 2, 3)], ids=str)
def test_a_coarse_point_holds_its_patch_and_zeros_beyond_the_edge(grid):
    x = normal(2, 3, *grid)
    patches = patchify(x, 2)
    for place in itertools.product(*(range(size) for size in patches.shape[2:])):
        inside = x[(..., *(slice(2 * i, 2 * i + 2) for i in place))]
        patch = x.new_zeros(2, 3, *[2] * len(grid))
        patch[(..., *(slice(size) for size in inside.shape[2:]))] = inside
        assert torch.equal(patches[(..., *place)], patch.flatten(1))
