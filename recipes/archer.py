"""ArCHer against a policy gradient of whole episodes: how many samples until a game of many turns is won?

A grid without walls, and a reward only on the last of up to fifteen moves. A policy gradient of whole episodes praises
or blames all moves alike; ArCHer's critic learns from every turn of the latest episodes what each move was worth. All
methods begin with the same policy (which imitates an agent that moves at random), play the same number of episodes per
step and have the same actor. Runs that are finished are not run again, so more seeds can be added to a folder.

    agent-rl train archer --run-dir runs/archer                          # the table and the picture
    agent-rl train archer --run-dir runs/archer --methods archer         # one part of it, in another process
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from rich.table import Table

from agent_rl import recipe
from agent_rl.cli import run_recipe
from agent_rl.environment import EnvironmentSpec
from agent_rl.evaluate.statistics import Estimate, mean
from agent_rl.learner.config import LearnerConfig
from agent_rl.learner.critic import CriticConfig
from agent_rl.learner.utterance_critic import UtteranceCriticConfig
from agent_rl.progress import training_progress
from agent_rl.registry import environment_spec
from agent_rl.rollout.limits import RolloutLimits
from agent_rl.starting_policy import Imitation, starting_policy
from agent_rl.store.journal import Journal
from agent_rl.train import TrainConfig, shuffled_epochs, train
from agent_rl.warm_start import WarmStartConfig

Method = Literal["archer", "rloo", "grpo"]
