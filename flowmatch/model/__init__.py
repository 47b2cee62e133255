"""The fitted flow, and what can be asked of it: samples, densities, codes, missing entries."""
