"""Weights sent as what changed since the last time: few bytes, and the same weights bit for bit."""
