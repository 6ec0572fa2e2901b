"""Labels: from tables about people to columns of the recordings table."""
