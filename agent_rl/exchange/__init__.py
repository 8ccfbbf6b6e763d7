"""Stored episodes in the formats of others, and back. One file for each format, of pure functions; no database."""
