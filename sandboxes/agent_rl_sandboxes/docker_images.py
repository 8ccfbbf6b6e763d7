"""Images of a Docker daemon: found by name, built from folders, and made of what is in a container. Blocks."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_rl.errors import SandboxFailure, UserError

if TYPE_CHECKING:
    from docker import DockerClient

_TRIES, _WAIT_S = 20, 0.05
_KEEPS = re.compile(
    r"/etc/ld\.so\.preload|/(bin|sbin|lib|lib32|lib64|usr|usr/bin|usr/lib|usr/lib64)|"
    r".*/s?bin/(bash|sh|dash|env|python3?(\.\d+)?|pyvenv\.cfg|.*\._pth)|/usr(/local)?/pyvenv\.cfg|"
    r"(/.*)?/lib(32|64)?/(.*/)?(ld-.*\.so.*|lib(c|m|dl|rt|util|pthread|z|expat|ffi|python3.*)[.-].*)|"
    r"/usr(/local)?/lib(64)?/python3[^/]*(\.zip|/(?!dist-packages|site-packages).*)"
)
_HARMLESS = re.compile(r".*/__pycache__(/.*)?|.*/(dist|site)-packages(/.*)?")
_MODIFIED = 0  # what the daemon says of a folder too, where only something in it was changed


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here, and the folder that its programs start in (empty: the root folder)."""

    id: str
    folder: str


def connect(timeout_s: float = 60) -> DockerClient:
    """A client of the daemon. `timeout_s` bounds each wait for it. Raises `UserError`."""
    import docker
    from docker.errors import DockerException

    try:
        return docker.from_env(timeout=int(timeout_s))
    except DockerException as error:
        raise UserError(
            "The Docker daemon cannot be reached: start it, and set DOCKER_HOST if it is not at its usual place."
        ) from error


def describe(images: Sequence[str], *, network: bool, timeout_s: float) -> Image:
    """The first of these images (names, or folders to build from) that is here. Raises the last one's `UserError`."""
    with closing(connect(timeout_s)) as client:
        for image in images:
            try:
                id = find_image(client, image, network=network)
            except UserError:
                if image == images[-1]:
                    raise
            else:
                settings = client.api.inspect_image(id)["Config"] or {}
                return Image(id, str(settings.get("WorkingDir") or ""))
    raise UserError("No image is named, and there is no folder with a Dockerfile.")


def find_image(client: DockerClient, image: str, *, network: bool) -> str:
    """The id of an image, built if it is a folder. Raises `UserError` when there is none."""
    from docker.errors import ImageNotFound

    if Path(image).is_dir():
        if not (Path(image) / "Dockerfile").is_file():
            raise UserError(
                f"The folder {image} has no Dockerfile to build an image from: write one, or name an image."
            )
        return _build(client, image, network)
    try:
        return str(client.images.get(image).id)
    except ImageNotFound as error:
        raise UserError(
            f"There is no image {image!r} here: docker pull {image}, or give a folder with a Dockerfile."
        ) from error


def _build(client: DockerClient, folder: str, network: bool) -> str:
    """Build an image. What is built already is not built again."""
    from docker.errors import APIError

    mode = None if network else "none"
    try:
        log = list(client.api.build(path=folder, network_mode=mode, rm=True, forcerm=True, decode=True))
        problem = next((str(line["error"]) for line in log if "error" in line), "")
    except APIError as error:
        log, problem = [], str(error)
    if problem:
        raise UserError(f"The image of {folder} cannot be built, mend its Dockerfile: {problem}.")
    return next(str(line["aux"]["ID"]) for line in log if "aux" in line)


def committed(api: Any, container: str) -> str:
    """The id of an image of what is in a container. Its programs stand still meanwhile.

    Raises `SandboxFailure` of kind `tampered` where they changed what keeps a sandbox: its shell, its Python, the C
    library.
    """
    from docker.errors import APIError

    try:
        api.pause(container)
    except APIError as error:
        raise SandboxFailure("The container has died: it cannot be forked.", kind="died") from error
    try:
        if changed := tampered_paths(api.diff(container) or ()):
            what = ", ".join(changed[:3])
            raise SandboxFailure(f"What keeps the container was changed: {what}.", kind="tampered", retryable=False)
        return str(api.commit(container, pause=False, changes="LABEL agent-rl=fork")["Id"])
    finally:
        with suppress(APIError):
            api.unpause(container)


def tampered_paths(changes: list[dict[str, Any]] | tuple[()]) -> list[str]:
    """Which of the daemon's `[{"Path": ..., "Kind": ...}]` are what keeps a sandbox."""
    paths = [(str(change["Path"]), change["Kind"]) for change in changes]
    parents = {path.rpartition("/")[0] for path, _ in paths}
    return [
        path
        for path, kind in paths
        if _KEEPS.fullmatch(path) and not _HARMLESS.fullmatch(path) and not (kind == _MODIFIED and path in parents)
    ]


def remove_image(api: Any, image: str) -> None:
    """Remove an image whose container is gone, or about to be."""
    from docker.errors import APIError, ImageNotFound

    for _ in range(_TRIES):
        try:
            api.remove_image(image, force=True, noprune=True)  # what it was made from stays
        except ImageNotFound:
            return
        except APIError as error:
            if error.status_code != 409:  # its container is still on its way out
                raise
            time.sleep(_WAIT_S)
        else:
            return
