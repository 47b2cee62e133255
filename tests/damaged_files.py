"""Saved models with something changed."""

import copy
import json

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from flowmatch.core.tensor_file import checksum

VALUES = (None, True, False, -1, 0, 1, 7, 1.5, float("nan"), "", "text", [], [1], {}, {"list": []}, {"dict": {}})
"""What is put in the place of others."""


def take_apart(content):
    """Header and tensors of a file."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["flowmatch"])
    return header, load_tensors(content)


def put_together(header, tensors):
    """The content of a file, with the checksum that belongs to it: as somebody would change it who means it."""
    if isinstance(header, dict) and "checksum" in header:
        header["checksum"] = checksum(header, tensors)
    return save_tensors(tensors, {"flowmatch": json.dumps(header)})


def tamper(path, change):
    """Rewrite a model's file with its header and tensors changed."""
    header, tensors = take_apart(path.read_bytes())
    change(header, tensors)
    path.write_bytes(put_together(header, tensors))


def places(node, way=()):
    """Ways to all that is in a header."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*way, key)
        yield from places(value, (*way, key))


def at(header, way):
    for key in way:
        header = header[key]
    return header


def setting(value, *keys):
    """Put `value` where the keys lead in the header."""

    def change(header, tensors):
        at(header, keys[:-1])[keys[-1]] = value

    return change


def without(*keys):
    """Delete what the keys lead to in the header."""

    def change(header, tensors):
        del at(header, keys[:-1])[keys[-1]]

    return change


def tensor(name, value):
    """Put a tensor into the file, or take it out with None."""

    def change(header, tensors):
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change


def fuzzed(content, random):
    """The content of a file with one thing changed at random."""
    if random.uniform() < 0.05:
        return content[: random.randint(len(content))]
    header, tensors = take_apart(content)
    if random.uniform() < 0.3:
        names = sorted(tensors)
        name = names[random.randint(len(names))]
        tensors[name] = _other(tensors[name], random)
        if tensors[name] is None:
            del tensors[name]
        return put_together(header, tensors)
    ways = list(places(header))
    *way, key = ways[random.randint(len(ways))]
    parent, kind = at(header, way), random.uniform()
    if kind < 0.2:
        del parent[key]
    elif kind < 0.4:
        parent[key] = copy.deepcopy(at(header, ways[random.randint(len(ways))]))
    else:
        parent[key] = VALUES[random.randint(len(VALUES))]
    return put_together(header, tensors)


def _other(value, random):
    """Another tensor, or None."""
    changes = [
        lambda: None,
        lambda: value.double() if value.dtype != torch.float64 else value.float(),
        lambda: value.to(torch.int64),
        lambda: value != 0,
        lambda: value[None],
        lambda: value.flatten()[1:],
        lambda: value.flatten()[:0],
        lambda: value.flatten().repeat(2),
        lambda: torch.zeros_like(value),
        lambda: ~value if value.dtype == torch.bool else -value,
        lambda: ~value if value.dtype == torch.bool else torch.full_like(value, 10**6),
        lambda: torch.full(value.shape, torch.nan, dtype=value.dtype if value.is_floating_point() else torch.float64),
    ]
    changed = changes[random.randint(len(changes))]()
    return None if changed is None else changed.contiguous()
