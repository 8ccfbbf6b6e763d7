"""Stored episodes again: in a fresh environment, sampled anew, or with another reward. Never changes the store."""
