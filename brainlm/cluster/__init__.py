"""The workflow on a cluster: what the site offers, and runs that start, end and start again there."""
