"""Where the journal of a run is, and how it is opened: a file in its folder, or a PostgreSQL database."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from sqlalchemy import Connection, insert, select
from sqlalchemy.engine import URL

from agent_rl.errors import UserError
from agent_rl.store import schema
from agent_rl.store.database import Database
from agent_rl.store.journal import Journal

STORE = "store.db"
TIMEOUT_S = 30.0


def open_journal(run_dir: Path, *, create: bool = False, timeout_s: float = TIMEOUT_S) -> Journal:
    """The journal of the run in `run_dir`; with `create` it may be a new one.

    Raises `UserError` when there is none, and when it cannot be opened.
    """
    path = run_dir / STORE
    if not create and not path.is_file():
        raise UserError(f"There are no episodes in {run_dir}: name a folder that `agent-rl train` or `eval` wrote.")
    run_dir.mkdir(parents=True, exist_ok=True)
    database = Database(URL.create("sqlite", database=str(path)), timeout_s=timeout_s)
    try:
        return Journal(database, database.transact(lambda connection: _run(connection, run_dir)))
    except BaseException:
        database.close()
        raise


def _run(connection: Connection, run_dir: Path) -> int:
    schema.metadata.create_all(connection)
    key = connection.execute(select(schema.runs.c.key)).scalar()
    if key is not None:
        return key
    row = {"id": uuid.uuid4().hex, "name": run_dir.name, "created_at": time.time(), "config": json.dumps({})}
    return connection.execute(insert(schema.runs).returning(schema.runs.c.key), row).scalar_one()
