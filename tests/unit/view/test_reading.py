import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import text

from agent_rl.errors import NotFoundError, UserError
from agent_rl.store.identity import Identity, write_identity
from agent_rl.store.opening import create_journal, open_journal
from agent_rl.store.url import StoreUrl
from agent_rl.types import Group
from agent_rl.view import queries
from agent_rl.view.answers import Answers
from agent_rl.view.queries import EpisodeQuery
from agent_rl.view.reading import Library
from tests.unit.store.test_versions import write_first_version

from .conftest import task, trajectory, write_run  # isort: skip


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_looking_at_a_finished_run_leaves_its_folder_as_it_was(run_dir):
    before = contents(run_dir)
    library = Library([run_dir])
    assert queries.count(library.journal(library.run("demo"))) == 12
    library.close()
    assert contents(run_dir) == before


def test_a_run_in_progress_shows_what_is_committed(run_dir, library, journal):
    with open_journal(run_dir) as writer:
        assert queries.count(journal) == 12
        writer.append_group(Group(3, task(0), (trajectory(task(0), 3, 0),)))
        assert (run_dir / "store.db-wal").exists(), "the writer has not checkpointed"
        assert queries.count(journal) == 13
    assert queries.count(journal) == 13


def test_nothing_can_be_written_through_it(journal):
    with pytest.raises(UserError, match="readonly"):
        journal.mark_consumed(9, [2])


def test_runs_are_found_under_folders_and_named_apart(tmp_path):
    write_run(tmp_path / "a" / "same")
    write_run(tmp_path / "b" / "same")
    write_run(tmp_path / "alone")
    (tmp_path / "notes").mkdir()
    (tmp_path / "alone" / "checkpoints").mkdir()
    names = {run.id: run.path.parent.name for run in Library([tmp_path]).runs()}
    [other] = names.keys() - {"same", "alone"}
    assert other == f"{names[other]}-same"
    assert [run.id for run in Library([tmp_path / "alone", tmp_path / "alone"]).runs()] == ["alone"]
    with pytest.raises(NotFoundError, match="alone"):
        Library([tmp_path]).run("alon")


def test_runs_in_a_postgresql_are_read_with_a_password_and_not_written(tmp_path, postgresql):
    run_dir = write_run(tmp_path / "runs" / "demo", postgresql)
    assert not (run_dir / "store.db").exists()
    library = Library([run_dir.parent], postgresql)
    journal = library.journal(library.run("demo"))
    with ThreadPoolExecutor(8) as threads:
        pages = list(threads.map(lambda _: queries.episodes(journal, EpisodeQuery(), 1.0)["total"], range(16)))
    assert pages == [12] * 16
    with pytest.raises(UserError, match="read-only"):
        journal.mark_consumed(9, [2])
    [line] = Answers(library).runs()["runs"]
    assert (line["status"], line["episodes"]) == ("stopped", 12)
    library.close()


def test_a_postgresql_of_another_version_is_not_upgraded_by_looking(tmp_path, postgresql):
    run_dir = write_run(tmp_path / "runs" / "demo", postgresql)
    with open_journal(run_dir) as journal:
        journal._database.transact(lambda c: c.execute(text("UPDATE alembic_version SET version_num = '0002'")))
    library = Library([run_dir])
    with pytest.raises(UserError, match="has schema version 0002, and is only looked at: let a command upgrade"):
        library.journal(library.run("demo"))


def test_a_run_without_an_episode_has_no_journal_yet(tmp_path, store):
    write_identity(tmp_path, Identity("0" * 32, str(StoreUrl(store))))
    library = Library([tmp_path], store)
    [run] = library.runs()
    assert library.journal(run) is None
    with create_journal(tmp_path, store=store):
        assert library.journal(run) is not None


def test_a_store_that_a_later_version_wrote_is_refused(run_dir):
    with closing(sqlite3.connect(run_dir / "store.db")) as store, store:
        store.execute("update alembic_version set version_num = '9999'")
    library = Library([run_dir])
    with pytest.raises(UserError, match="schema version 9999"):
        library.journal(library.run("demo"))
    assert Answers(library).runs()["runs"][0]["status"] == "unreadable"


def test_a_file_that_is_no_store_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "store.db").write_text("no database" * 100)
    library = Library([tmp_path])
    with pytest.raises(UserError, match="not a database"):
        library.journal(library.run("run"))


def test_an_old_store_is_read_from_an_upgraded_copy(tmp_path):
    folder = tmp_path / "old"
    groups = [Group(i, task(i), (trajectory(task(i), i, 0),)) for i in (0, 1)]
    write_first_version(folder / "store.db", groups)
    before = contents(folder)
    library = Library([folder])
    assert queries.count(library.journal(library.run("old"))) == 2
    library.close()
    assert contents(folder) == before
