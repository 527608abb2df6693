"""Judges a candidate by its reference: evidence, noise floor, figures, verdict."""
