"""The section `cluster` of a recipe: how many processes of which kind, and what each takes. Absent: one process."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from agent_rl.config import Config


class ClusterConfig(Config):
    """Rollout workers, inference replicas and learner ranks as actors of Ray (needs the extra ray)."""

    address: str = Field(
        default="",
        description="Address of a running Ray, or auto; none: Ray is started on this machine, for this run.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        description="Nodes to wait for; without an address, this machine plays as many, to try things out.",
    )
    rollout_workers: int = Field(
        default=0, ge=0, description="Processes with environments, tools and sandboxes; 0: one for each node."
    )
    episodes_per_worker: int = Field(
        default=0,
        ge=0,
        description="Episodes at once in a worker, as its sandboxes allow; 0: no limit of its own.",
    )
    inference_replicas: int = Field(
        default=0,
        ge=0,
        description="Processes with an engine, for all workers; 0: each rollout worker has an engine of its own.",
    )
    learner_ranks: int = Field(default=1, ge=1, description="Processes of the learner, which share its weights.")
    cpus_per_worker: float = Field(default=1.0, ge=0, description="CPUs that Ray sets aside for a rollout worker.")
    cpus_per_replica: float = Field(default=1.0, ge=0, description="CPUs for an inference replica.")
    cpus_per_rank: float = Field(default=1.0, ge=0, description="CPUs for a learner rank.")
    gpus_per_engine: float = Field(
        default=0.0, ge=0, description="GPUs for whatever has an engine: a replica, or else a rollout worker."
    )
    gpus_per_rank: int = Field(default=0, ge=0, le=1, description="GPUs for a learner rank.")
    start_timeout_s: float = Field(
        default=600.0, gt=0, description="How long to wait for nodes, for the learner, and for a first rollout worker."
    )
    close_timeout_s: float = Field(default=30.0, gt=0, description="How long a process has to end in good order.")

    @property
    def workers(self) -> int:
        """Rollout workers."""
        return self.rollout_workers or self.nodes

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        if self.gpus_per_engine and not self.gpus_per_rank:
            raise ValueError("gpus_per_engine without gpus_per_rank: the learner would be the slowest part by far.")
        return self
