"""Which trackers a run has."""

from __future__ import annotations

from pydantic import Field

from agent_rl.config import Config


class WandbConfig(Config):
    """Weights & Biases; the key and the host come from its own variables, such as WANDB_API_KEY and WANDB_MODE."""

    project: str = Field(default="agent-rl", min_length=1, description="The project.")
    entity: str | None = Field(default=None, description="The team, or none: your own.")
    group: str | None = Field(default=None, description="Runs of a group are shown together, such as seeds.")
    tags: tuple[str, ...] = Field(default=(), description="Tags to find the run by.")


class MlflowConfig(Config):
    """MLflow."""

    experiment: str = Field(default="agent-rl", min_length=1, description="The experiment.")
    tracking_uri: str | None = Field(
        default=None, description="The server or database; else MLflow's own: MLFLOW_TRACKING_URI."
    )


class TrackioConfig(Config):
    """Trackio: on this machine, on a server (TRACKIO_SERVER_URL), or on a Hugging Face Space."""

    project: str = Field(default="agent-rl", min_length=1, description="The project.")
    space_id: str | None = Field(default=None, description="A Hugging Face Space that shows the run.")


class PrometheusConfig(Config):
    """An endpoint that Prometheus reads the last step's metrics from: http://ADDRESS:PORT/metrics."""

    port: int = Field(default=9464, ge=0, le=65535, description="The port; 0 takes a free one.")
    address: str = Field(default="127.0.0.1", description="Where it listens; 0.0.0.0 for all networks.")


class TrackersConfig(Config):
    """Where metrics go besides `metrics.jsonl`."""

    tensorboard: bool = Field(default=True, description="Write RUN/tensorboard.")
    wandb: WandbConfig | None = Field(default=None, description="Weights & Biases (needs the extra wandb).")
    mlflow: MlflowConfig | None = Field(default=None, description="MLflow (needs the extra mlflow).")
    trackio: TrackioConfig | None = Field(default=None, description="Trackio (needs the extra trackio).")
    prometheus: PrometheusConfig | None = Field(
        default=None, description="An endpoint for Prometheus (needs the extra serve)."
    )
    custom: tuple[str, ...] = Field(
        default=(), description="Trackers of your own: registered names, or package.module:function."
    )
