"""Where the journal of a run is, and how it is opened: a file in its folder, or a run of a PostgreSQL database."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection, and_, insert, select, update
from sqlalchemy.engine import URL

from agent_rl.config import Config
from agent_rl.environment import EnvironmentSpec
from agent_rl.errors import ConfigError, UserError
from agent_rl.registry import environment_to_json
from agent_rl.store import schema
from agent_rl.store.database import Database
from agent_rl.store.identity import Identity, read_identity, write_identity
from agent_rl.store.journal import Journal
from agent_rl.store.url import StoreUrl
from agent_rl.store.versions import prepare, upgrade_file, upgraded_copy, version_of

STORE = "store.db"
TIMEOUT_S = 30.0


class EmptyRunError(UserError):
    """A folder that has no episodes, or none yet."""


def open_journal(run_dir: Path, *, store: str = "", timeout_s: float = TIMEOUT_S, read_only: bool = False) -> Journal:
    """The journal of the run in `run_dir`, which says where its store is; `store`, a `StoreUrl`, may add the password.

    With `read_only` threads may share it, and nothing changes in the folder or the database: a file of an earlier
    version is read from an upgraded copy. Raises `EmptyRunError` when there are no episodes, `UserError` when the store
    cannot be used.
    """
    identity = read_identity(run_dir)
    if not _has_begun(run_dir, identity):
        raise _no_episodes(run_dir)
    database = (_database_to_read if read_only else _database)(run_dir, identity, store, timeout_s)

    def work(connection: Connection) -> int:
        version = version_of(connection, database.name)
        if version is None:
            raise _no_episodes(run_dir)
        if not read_only:
            prepare(connection, database.name)
        elif version != schema.VERSION:
            raise UserError(
                f"The store {database.name} has schema version {version}, and is only looked at: let a command upgrade "
                f"it to {schema.VERSION}, such as `agent-rl trace {run_dir}`."
            )
        if (key := _find_run(connection, identity)) is None:
            raise _no_episodes(run_dir)
        return key

    return _opened(database, work)


def create_journal(
    run_dir: Path,
    *,
    store: str = "",
    config: Config | None = None,
    environment: EnvironmentSpec | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Journal:
    """The journal for the process that owns the folder (`lock.owned`): a new one, or the one that is there.

    `config` and `environment` are kept with a new run. Raises `UserError` when the run is in another store, when
    another process uses it, and when its store cannot be used.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    url, known = StoreUrl(store), read_identity(run_dir)
    identity = known or Identity(uuid.uuid4().hex)
    if not _has_begun(run_dir, known):
        identity = replace(identity, store=str(url))
    elif url not in ("", identity.store):
        raise ConfigError(
            f"The episodes of {run_dir} are in {identity.store or STORE}, not in {url}: leave out store, or name "
            "another folder."
        )
    if identity != known:
        write_identity(run_dir, identity)
    database = _database(run_dir, identity, store, timeout_s, owner=True)
    row = {
        "id": identity.id,
        "name": run_dir.resolve().name,
        "created_at": time.time(),
        "config": "{}" if config is None else config.model_dump_json(),
        "environment": json.dumps(environment_to_json(environment)) if environment else None,
    }

    def work(connection: Connection) -> int:
        prepare(connection, database.name)
        if (key := _find_run(connection, identity)) is not None:
            unknown = and_(schema.runs.c.key == key, schema.runs.c.environment.is_(None))
            connection.execute(update(schema.runs).where(unknown).values(environment=row["environment"]))
            return key
        return connection.execute(insert(schema.runs).returning(schema.runs.c.key), row).scalar_one()

    return _opened(database, work)


def _has_begun(run_dir: Path, identity: Identity | None) -> bool:
    return (identity is not None and bool(identity.store)) or (run_dir / STORE).is_file()


def _no_episodes(run_dir: Path) -> EmptyRunError:
    return EmptyRunError(f"There are no episodes in {run_dir}: name a folder that `agent-rl train` or `eval` wrote.")


def _database(
    run_dir: Path, identity: Identity | None, store: str, timeout_s: float, *, owner: bool = False
) -> Database:
    """Of the run; a file is upgraded first."""
    if identity is None or not identity.store:
        path = run_dir / STORE
        database = Database(URL.create("sqlite", database=str(path)), timeout_s=timeout_s)
        version = database.transact(lambda connection: version_of(connection, database.name))
        if version not in (None, schema.VERSION):
            database.close()
            upgrade_file(path, version)
        return database
    lock = int(identity.id[:16], 16) - 2**63 if owner else None
    return Database(_url_of(identity, store), timeout_s=timeout_s, lock=lock)


def _database_to_read(run_dir: Path, identity: Identity | None, store: str, timeout_s: float) -> Database:
    """Of the run; of a file with another schema, an upgraded copy in a folder that lasts as long."""
    if identity is not None and identity.store:
        return Database(_url_of(identity, store), timeout_s=timeout_s, read_only=True)
    path = run_dir / STORE
    database = Database(URL.create("sqlite", database=str(path)), timeout_s=timeout_s, read_only=True)
    version = database.transact(lambda connection: version_of(connection, database.name))
    if version in (None, schema.VERSION):
        return database
    spare = TemporaryDirectory(prefix="agent-rl-")
    try:
        copy = upgraded_copy(path, version, Path(spare.name), timeout_s)
    except BaseException:
        spare.cleanup()
        raise
    database = Database(URL.create("sqlite", database=str(copy)), timeout_s=timeout_s, read_only=True)
    database.closing.enter_context(spare)
    return database


def _url_of(identity: Identity, store: str) -> URL:
    given = StoreUrl(store)
    return (given if given == identity.store else StoreUrl(identity.store)).full()


def _find_run(connection: Connection, identity: Identity | None) -> int | None:
    """A file has one run, whatever its folder says."""
    query = select(schema.runs.c.key)
    if identity is not None and identity.store:
        query = query.where(schema.runs.c.id == identity.id)
    return connection.execute(query).scalar()


def _opened(database: Database, find_run: Callable[[Connection], int]) -> Journal:
    try:
        return Journal(database, database.transact(find_run))
    except BaseException:
        database.close()
        raise
