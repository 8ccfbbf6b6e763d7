import json
import re

import pytest

from agent_rl.errors import ConfigError, UserError
from agent_rl.view.export import MARK, as_script, export
from agent_rl.view.reading import Library

CALL = re.compile(r'view\.deliver\(("(?:[^"\\]|\\.)*"), ("(?:[^"\\]|\\.)*")\);\n')


@pytest.fixture(autouse=True)
def without_settings(run_dir):
    """The defaults of a training run's settings would import torch."""
    (run_dir / "config.json").unlink()


def delivered(path):
    """What a data file hands over; fails when the file is anything but one call with two string literals."""
    call = CALL.fullmatch(path.read_text("ascii"))
    assert call, f"{path} is not one call"
    return json.loads(call[1]), json.loads(json.loads(call[2]))


def test_an_export_has_every_episode_once(library, tmp_path):
    out = tmp_path / "out"
    assert export(library, out) == 1
    files = dict(delivered(path) for path in (out / "data").rglob("*.js"))
    [run] = files["runs"]["runs"]
    assert (run["id"], run["number"], run["tables"], run["groups"]) == ("demo", 0, 1, 3)
    keys = {f"{group}/{member}" for group in range(3) for member in range(4)}
    assert files["0/episodes-0000"].keys() == files["0/tokens-0000"].keys() == keys
    table = files["0/table-0000"]
    assert len(table["rows"]) == 12
    assert table["tasks"]["1"] == {"tags": ["hard", "50%_off"], "text": "task-1 Größe von 5% /tmp?", "page": 0}
    assert len(files["0/timeline-0000"]["episodes"]) == 12
    assert files["0/metrics"]["steps"] == [1, 2]
    page = (out / "index.html").read_text("utf-8")
    assert 'data-source="files"' in page
    assert all((out / name).is_file() for name in re.findall(r'"(static/[^"]+)"', page))


def test_pages_hold_whole_groups(library, tmp_path, monkeypatch):
    monkeypatch.setattr("agent_rl.view.export.PAGE_EPISODES", 5)
    export(library, tmp_path / "out")
    files = dict(delivered(path) for path in (tmp_path / "out" / "data").rglob("*.js"))
    assert [len(files[f"0/episodes-{page:04}"]) for page in (0, 1)] == [8, 4]
    assert [files["0/table-0000"]["tasks"][group]["page"] for group in "012"] == [0, 0, 1]


def test_an_earlier_export_is_replaced_and_nothing_else(library, tmp_path):
    out = tmp_path / "out"
    export(library, out)
    (out / "data" / "0" / "episodes-0007.js").write_text("old")
    export(library, out)
    assert not (out / "data" / "0" / "episodes-0007.js").exists()
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").write_text("")
    with pytest.raises(ConfigError, match="not empty and no earlier export"):
        export(library, thesis)
    with pytest.raises(ConfigError, match="not empty"):
        export(library, out / MARK)
    assert [path.name for path in thesis.iterdir()] == ["chapter.tex"]


def test_nothing_to_export_is_said(tmp_path):
    with pytest.raises(UserError, match="no runs"):
        export(Library([tmp_path / "empty"]), tmp_path / "out")


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "\u2028\u2029", "\\\"');//", "\ud800\0", "]]>", "__proto__"]
)
def test_no_text_can_leave_its_string(text):
    script = as_script("0/x", {text: text})
    call = CALL.fullmatch(script)
    assert call
    assert json.loads(json.loads(call[2])) == {text: text}
    assert "<" not in script
    assert script.isascii()
