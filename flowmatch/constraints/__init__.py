"""Constraints between the columns of tables: stated or found, checked on training rows, and kept in drawn ones."""
