"""Filters on a real database."""
