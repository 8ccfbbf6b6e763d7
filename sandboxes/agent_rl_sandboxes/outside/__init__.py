"""What the launcher is made of: mounts, control groups, the janitor. Standard library only, Python 3.9 or newer."""
