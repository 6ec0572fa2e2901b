"""Doing a part of a study again, and telling how far the results are from those recorded."""
