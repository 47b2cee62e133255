"""Saved models with something changed."""

import copy
import json

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from flowmatch.core.tensor_file import checksum

VALUES = (
    None, True, False, -1, 0, 1, 7, 1.5, float("nan"), float("inf"), -1e300, "", "text", [], [1], {}, {"list": []},
    {"dict": {}}, 20_000, 10**5, 10**9, 2**63, 10**30, [10**5, 10**5], "os.system", "<U200000000", "datetime64[25Y]",
    "dateutil//etc/hostname", "../../etc/hostname", "/etc/hostname", "read_csv|/etc/hostname", "object", "float64",
    "Datetime|us|/etc/hostname", "complex128", "V8", "category", "Sparse[int]", {"array": "x"}, {"texts": [], "dtype": "O"},
)  # fmt: skip
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
    if kind < 0.3 and isinstance(parent[key], (int, float)) and not isinstance(parent[key], bool):
        factors = (-1, 0, 0.5, 2, 100, 10**5, 10**12)
        parent[key] = type(parent[key])(parent[key] * factors[random.randint(len(factors))] + random.randint(3))
    elif kind < 0.3 and isinstance(parent[key], str) and parent[key]:
        position = random.randint(len(parent[key]))
        parent[key] = parent[key][:position] + chr(33 + random.randint(94)) + parent[key][position + 1 :]
    elif kind < 0.4:
        del parent[key]
    elif kind < 0.55:
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
