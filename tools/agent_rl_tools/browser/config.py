"""How the browser is started, and what an episode in it may do and sees."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent_rl.config import Config
from agent_rl_tools.browser.view import Observation

Clock = Literal["real", "stepped"]


class BrowserConfig(Config):
    """How the browser is started."""

    executable: str = Field(
        default="",
        description="Path of Chromium; none: the system's chromium-headless-shell or chromium, else Playwright's own.",
    )
    width: int = Field(default=1280, ge=100, description="Width of the page in pixels.")
    height: int = Field(default=800, ge=100, description="Height of the page in pixels.")
    action_timeout_s: float = Field(
        default=10.0, gt=0, description="Deadline of one action on a page; a page that hangs longer is closed."
    )
    load_timeout_s: float = Field(default=10.0, gt=0, description="How long a page may load; then it is looked at.")
    quiet_s: float = Field(
        default=1.0, ge=0, description="How long what an action set off may go on until the page is looked at."
    )
    launch_timeout_s: float = Field(default=60.0, gt=0, description="Deadline for starting the browser.")
    max_contexts: int = Field(
        default=64, ge=1, description="Episodes that may use the browser at once; each takes about 70 MB."
    )
    spares: int = Field(
        default=2, ge=0, description="Contexts made ready beforehand, so that an episode need not wait for one."
    )
    wait_timeout_s: float = Field(default=45.0, gt=0, description="How long an episode waits for its turn.")
    max_tabs: int = Field(default=8, ge=1, description="Tabs of an episode; pages that open more have them closed.")
    own_sandbox: bool = Field(
        default=False, description="Use Chromium's own sandbox for its processes; it needs another user than root."
    )


class ViewConfig(Config):
    """What a model sees of a page."""

    observation: Observation = Field(
        default="tree",
        description="tree: the accessibility tree; elements: a line for each text and thing to act on; text: no ids.",
    )
    viewport_only: bool = Field(default=True, description="Show what is inside the viewport; else the whole page.")
    max_chars: int = Field(default=12_000, ge=100, description="Characters of one observation.")
    header: bool = Field(default=True, description="Whether address, title and tabs are shown.")
    screenshots: Path | None = Field(
        default=None,
        description="Folder that gets a picture of each observation, with the elements' ids drawn on it.",
    )


class PageConfig(Config):
    """What a page finds around it."""

    clock: Clock = Field(
        default="real",
        description="stepped: the page's clock starts at a fixed time and stands still but for `step_s` an action.",
    )
    step_s: float = Field(default=1.0, gt=0, description="How far a stepped clock goes with each action.")
    random_seed: int | None = Field(
        default=None, ge=0, description="Seed of the page's Math.random and crypto; none: really random."
    )
    dialogs: Literal["accept", "dismiss"] = Field(
        default="accept", description="What becomes of alert, confirm and prompt; the model is told."
    )
    storage_state: Path | None = Field(
        default=None, description="Cookies and storage to begin with, as Playwright writes them."
    )
