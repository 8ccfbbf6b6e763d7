import sqlite3
from contextlib import closing

import pytest

from agent_rl.errors import NotFoundError, UserError
from agent_rl.store.opening import open_journal
from agent_rl.types import Group
from agent_rl.view import queries
from agent_rl.view.answers import Answers
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
