"""Answers about one output, or several, in each row, whatever model gave their density."""
