"""Where a run's episodes are: found again from its folder, with a password that nobody writes down."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.engine import make_url

from agent_rl.config import Config, check_same_config, dump_config, load_config
from agent_rl.errors import ConfigError, UserError
from agent_rl.evaluate.harness import EvalConfig
from agent_rl.store import schema
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.url import StoreAddress, StoreUrl

SECRET = "open:sesame/%40"


class Options(Config):
    store: StoreAddress = ""


def test_a_folder_says_where_its_run_is(tmp_path: Path, store: str, make_group) -> None:
    with create_journal(tmp_path / "run", store=store, config=Options()) as journal:
        journal.append_group(make_group(3))
        [run] = journal.rows(select(schema.runs))
        assert (run.name, json.loads(run.config)) == ("run", {"store": ""})
    assert (tmp_path / "run" / "store.db").is_file() == (not store)
    with open_journal(tmp_path / "run") as found:
        assert list(found.load_groups()) == [3]
    with create_journal(tmp_path / "run") as resumed, create_journal(tmp_path / "other", store=store) as other:
        assert list(resumed.load_groups()) == [3]
        assert list(other.load_groups()) == []


def test_a_run_stays_in_its_store(tmp_path: Path, postgresql: str) -> None:
    create_journal(tmp_path / "file").close()
    with pytest.raises(ConfigError, match=r"are in store\.db, not in postgresql\+psycopg://.*: leave out store"):
        create_journal(tmp_path / "file", store=postgresql)
    create_journal(tmp_path / "server", store=postgresql).close()
    with pytest.raises(ConfigError, match=r"are in postgresql\+psycopg://.*, not in .*/another"):
        create_journal(tmp_path / "server", store=postgresql.rpartition("/")[0] + "/another")


def test_a_password_connects_and_is_written_nowhere(
    tmp_path: Path, postgresql: str, monkeypatch: pytest.MonkeyPatch, make_group
) -> None:
    """The server of the tests trusts everybody: what counts is what is sent, and what is left behind."""
    url = make_url(postgresql).set(password=SECRET)
    config = Options(store=url.render_as_string(hide_password=False))
    assert StoreUrl(config.store).full().password == SECRET
    with create_journal(tmp_path, store=config.store, config=config) as journal:
        journal.append_group(make_group(0))
        kept = [str(row) for table in schema.metadata.sorted_tables for row in journal.rows(select(table))]
    dump_config(config, tmp_path / "config.json")
    written = [path.read_text("utf-8") for path in tmp_path.iterdir()]
    shown = [repr(config), str(config), config.model_dump_json(), *kept, *written]
    assert not any(secret in text for text in shown for secret in ("sesame", "%2540"))
    check_same_config(load_config(Options, tmp_path / "config.json"), config)
    with open_journal(tmp_path, store=config.store) as journal:
        assert journal._database.url.password == SECRET
    with open_journal(tmp_path) as journal:
        assert journal._database.url.password is None, "then libpq looks into PGPASSWORD"


def test_a_server_that_lets_nobody_in_is_one_sentence_without_it(tmp_path: Path, postgresql: str) -> None:
    name = make_url(postgresql).database
    engine = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} CONNECTION LIMIT 0"))
        connection.execute(text("CREATE ROLE nobody_much LOGIN"))
    engine.dispose()
    url = make_url(postgresql).set(username="nobody_much", password=SECRET)
    with pytest.raises(UserError, match=r"cannot be used: .*too many connections") as refused:
        create_journal(tmp_path, store=url.render_as_string(hide_password=False))
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "reason"), [("mysql://u:sesame@h/d", "a store is no 'mysql' database"), ("::sesame::", "no URL of a store")]
)
def test_what_is_no_postgresql_is_refused_without_showing_it(url: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        load_config(EvalConfig, None, {"environment": "bandit", "agent": "random", "store": url})
    assert "sesame" not in str(refused.value)


def test_the_drivers_name_may_be_left_out() -> None:
    assert StoreUrl("postgresql://me:x@host:5/db") == "postgresql+psycopg://me@host:5/db"
    assert StoreUrl("postgresql://host/db?password=x&sslmode=require") == "postgresql+psycopg://host/db?sslmode=require"
    assert StoreUrl("postgresql://host/db?password=x").full().password == "x"


def test_a_copy_of_the_folder_is_refused_while_the_run_goes_on(tmp_path: Path, postgresql: str, make_group) -> None:
    with create_journal(tmp_path / "run", store=postgresql) as journal:
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with pytest.raises(UserError, match=r"is in use by process \d+ on .*: wait for it, or end it"):
            create_journal(tmp_path / "copy", store=postgresql)
        with open_journal(tmp_path / "copy") as reader:
            assert reader.scores() == []
        journal.append_group(make_group(0))
    with create_journal(tmp_path / "copy") as copy:
        assert list(copy.load_groups()) == [0]


# --- damage ---


def damage(journal, index: int, column: str, value: object) -> None:
    where = schema.records.c.group_index == index
    journal._database.transact(
        lambda connection: connection.execute(update(schema.records).where(where).values({column: value}))
    )


@pytest.mark.parametrize("column", ["record", "token_rows"])
def test_a_damaged_group_is_set_aside_and_a_consumed_one_stops(tmp_path, store, make_group, caplog, column) -> None:
    with create_journal(tmp_path, store=store) as journal:
        for index in range(3):
            journal.append_group(make_group(index, members=2))
        journal.mark_consumed(1, [0])
        journal.add_trained_tokens(1, [])
        [(value,)] = journal.rows(
            select(schema.records.c[column]).where(schema.records.c.group_index == 2, schema.records.c.member == 0)
        )
        flipped = (
            value.replace("look", "loom") if column == "record" else bytes([value[0], *value[1:-1], value[-1] ^ 1])
        )
        damage(journal, 2, column, flipped)
        with pytest.raises(UserError, match=r"Group 2 in .* is damaged: it differs from its checksum"):
            journal.load_groups()
        with caplog.at_level(logging.WARNING):
            assert journal.set_aside_damaged(tmp_path) == [2]
        assert "Group 2 is damaged: set aside as" in caplog.text
        assert (tmp_path / "damaged-group-00000002.txt").is_file()
        assert list(journal.load_groups()) == [0, 1]
        journal.append_group(make_group(2))
        assert len(journal.load_groups()[2].trajectories) == 3
        damage(journal, 0, column, flipped)
        assert journal.set_aside_damaged(tmp_path) == []
        with pytest.raises(UserError, match=r"Group 0 in .* is damaged.* Restore the store from a copy"):
            journal.read_groups([0])
        assert list(journal.read_groups([1])) == [1]


@pytest.mark.parametrize("column", ["definitions", "tools"])
def test_damaged_tools_are_made_good_by_the_next_episode(tmp_path, store, make_group, column) -> None:
    group, tools = make_group(0, members=1), ({"type": "function", "function": {"name": "look"}},)
    group = dataclasses.replace(group, trajectories=(dataclasses.replace(group.trajectories[0], tools=tools),))
    with create_journal(tmp_path, store=store) as journal:
        journal.append_group(group)
        if column == "tools":
            damage(journal, 0, "tools", None)
        else:
            query = update(schema.tool_sets).values(definitions='[{"type": "function"')
            journal._database.transact(lambda connection: connection.execute(query))
        with pytest.raises(UserError, match=r"Group 0 in .* is damaged"):
            journal.load_groups()
        assert journal.set_aside_damaged(tmp_path) == [0]
        journal.append_group(group)
        assert journal.load_groups()[0].trajectories[0].tools == tools


def test_text_that_is_no_longer_text_is_damage_too(tmp_path: Path, make_group) -> None:
    """A flipped bit may break UTF-8, and must not keep the driver from reading the rest."""
    with create_journal(tmp_path) as journal:
        for index in range(2):
            journal.append_group(dataclasses.replace(make_group(index, members=1)))
        query = "UPDATE records SET record = CAST(x'ff' || CAST(record AS BLOB) AS TEXT) WHERE group_index = 0"
        journal._database.transact(lambda connection: connection.execute(text(query)))
        assert journal.set_aside_damaged(tmp_path) == [0]
        assert list(journal.load_groups()) == [1]
