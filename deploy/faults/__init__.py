"""Faults that are made on purpose, as programs."""
