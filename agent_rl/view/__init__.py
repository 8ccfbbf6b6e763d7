"""The viewer: runs, episodes and tokens as a local page, served or written to a folder. It only reads."""
