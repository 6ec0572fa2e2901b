"""Cohort selection, splits, scaling, and the sharded tensors that training reads."""
