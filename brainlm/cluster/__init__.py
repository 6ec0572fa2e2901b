"""The workflow on a cluster: what a site offers, and runs that start, end and go on there."""
