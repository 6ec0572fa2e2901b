"""What the workflow knows of the cluster that it runs on."""
