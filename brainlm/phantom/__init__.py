"""Synthetic BIDS datasets with known truth."""
