"""Small functions for a shop."""
