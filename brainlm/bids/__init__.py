"""Finding and checking what a BIDS dataset holds."""
