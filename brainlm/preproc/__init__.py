"""From raw BOLD to standard space: motion, normalisation, resampling, confounds."""
