"""Metrics on held-out subjects, with honest uncertainty."""
