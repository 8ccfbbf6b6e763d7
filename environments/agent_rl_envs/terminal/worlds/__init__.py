"""Systems that agents find: images of a Docker daemon, or a root folder over the tools of this machine."""
