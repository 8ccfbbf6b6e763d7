"""MiniWoB++ pages (arXiv:1802.08802) as tasks of the browser environment."""
