"""The reproducibility report: what a reviewer can check, from any number back to raw files."""
