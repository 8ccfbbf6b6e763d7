"""Tests of pantry."""
