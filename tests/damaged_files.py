"""Rewrite saved models with something changed."""

import json

from safetensors.torch import load as load_tensors
from safetensors.torch import save_file


def tamper(path, change):
    """Rewrite a model's file with its header and tensors changed."""
    content = path.read_bytes()
    tensors = load_tensors(content)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["flowmatch"])
    change(header, tensors)
    save_file(tensors, path, {"flowmatch": json.dumps(header)})


def setting(value, *keys):
    """Put `value` where the keys lead in the header."""

    def change(header, tensors):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


def without(*keys):
    """Delete what the keys lead to in the header."""

    def change(header, tensors):
        for key in keys[:-1]:
            header = header[key]
        del header[keys[-1]]

    return change


def tensor(name, value):
    """Put a tensor into the file, or take it out with None."""

    def change(header, tensors):
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value

    return change
