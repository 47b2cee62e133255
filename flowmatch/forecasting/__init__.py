"""Forecasts: windows of series, fields and tables as conditions of a flow, and ensembles drawn from it."""
