"""Tests on a real Slurm, started on this machine's loopback for them."""
