"""Proofs that a model, its chat template, its tool-call parser and an engine fit together. Start at `tokens`."""
