"""The kinds of sandboxes under test."""

import pytest

from tests.sandboxes.docker_daemon import IMAGE

SUPERVISED = ("process", "bubblewrap")
KINDS = (*SUPERVISED, "docker")
# For tests of the machinery of these kinds: launcher, janitor, mounts.
supervised_only = pytest.mark.parametrize("kind", SUPERVISED, indirect=True)


def image_of(kind: str) -> str:
    """What a config of this kind needs as `image`."""
    return IMAGE if kind == "docker" else ""
