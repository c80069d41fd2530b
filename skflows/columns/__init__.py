"""The only room that looks into a table: its columns, read as numbers and written back."""
