"""The page of a model's evaluation: every result of `snakemake evaluate`, in one place."""
