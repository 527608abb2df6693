"""Finds the first tensor that departs from the reference, and makes it reproducible."""
