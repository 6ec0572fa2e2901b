"""From raw BIDS fMRI to a trained, evaluated BrainLM."""

__version__ = "0.1.0"
