"""Task directories as they are published, without conversion."""
