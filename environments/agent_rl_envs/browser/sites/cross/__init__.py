"""Tasks that need several of the sites."""
