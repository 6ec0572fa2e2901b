"""Pages of quality control: one of each recording, and one of all."""
