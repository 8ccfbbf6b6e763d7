from pathlib import Path

import pytest

from agent_rl.cli import main
from agent_rl.view.command import ViewConfig, run


def test_a_folder_that_is_not_there_is_one_sentence(capsys):
    assert main(["view", "nowhere"]) == 2
    assert "There is no folder nowhere" in " ".join(capsys.readouterr().err.split())


def test_a_static_copy_is_written(run_dir, tmp_path, capsys):
    assert main(["view", str(run_dir), "--static", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "index.html").is_file()
    assert str(tmp_path / "out" / "index.html") in "".join(capsys.readouterr().out.split("\n"))


def test_the_address_is_on_this_machine_with_a_token_of_its_own(run_dir):
    addresses = []

    def opened(url):
        addresses.append(url)
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises((KeyboardInterrupt, BaseExceptionGroup)):
            run(ViewConfig(runs=(run_dir,)), lambda text: None, on_url=opened)
    first, second = addresses
    assert first.startswith("http://127.0.0.1:")
    tokens = {url.partition("?token=")[2] for url in (first, second)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


def test_without_a_name_the_runs_of_this_folder_are_shown(run_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(run_dir.parent.parent)
    assert main(["view", "--static", "out"]) == 0
    assert Path("out/data/0/overview.js").is_file()
