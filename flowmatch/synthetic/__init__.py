"""Synthetic rows of tables that have a target: how many of which kind, drawn and joined to the real ones."""
