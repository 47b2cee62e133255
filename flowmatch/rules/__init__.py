"""Rules that the values of a column keep, found in data and told: decimals, steps, endings, days and hours."""
