"""Rows in the format of WebArena (arXiv:2307.13854) as tasks of the browser environment."""
