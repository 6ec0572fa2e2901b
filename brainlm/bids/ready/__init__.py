"""Finding runs that other pipelines have preprocessed: one module for each layout."""
