"""`python`, `bash`, the file tools and `submit`, as a model calls them, in a real sandbox."""

from contextlib import asynccontextmanager

import pytest

from agent_rl import Message, Step, Task, ToolCall, ToolEnvironment, run_tool_calls
from agent_rl.errors import SandboxFailure
from agent_rl.sandbox import SandboxConfig, open_sandbox
from agent_rl.testing import check_tool
from agent_rl_tools.bash import BashTool
from agent_rl_tools.files import FileTools
from agent_rl_tools.python import PythonTool
from agent_rl_tools.submit import SubmitTool

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@asynccontextmanager
async def sandbox():
    async with await open_sandbox(SandboxConfig(kind="process")) as opened:
        yield opened


async def call(toolset, name, **arguments):
    [result] = await run_tool_calls(toolset.tools, [ToolCall("1", name, arguments)])
    return result


async def say(toolset, name, **arguments):
    return (await call(toolset, name, **arguments)).content


async def test_python_remembers_and_shows_values():
    async with sandbox() as box:
        python = PythonTool(box)
        assert await say(python, "python", code="x = 20\nprint('hello')\nx + 1") == "hello\n21"
        assert await say(python, "python", code="x * 2") == "40"
        assert await say(python, "python", code="y = 1") == "[no output]"
        error = await say(python, "python", code="def f():\n    return 1 / 0\nf()")
        assert "ZeroDivisionError" in error
        assert "return 1 / 0" in error
        await python.close()


async def test_python_that_takes_too_long_is_stopped_and_goes_on():
    async with sandbox() as box:
        python = PythonTool(box, timeout_s=2)
        await say(python, "python", code="x = 7")
        assert "longer than 2 s" in await say(python, "python", code="while True: pass")
        assert await say(python, "python", code="x") == "7"


async def test_a_dead_interpreter_is_said_to_be_dead():
    async with sandbox() as box:
        python = PythonTool(box)
        assert "state is lost" in await say(python, "python", code="import os; os._exit(3)")
        assert await say(python, "python", code="1 + 1") == "2"


async def test_bash_remembers_its_folder():
    async with sandbox() as box:
        bash = BashTool(box)
        assert await say(bash, "bash", command="mkdir a; cd a; X=5; echo ok") == "ok"
        assert await say(bash, "bash", command="basename $PWD; echo $X") == "a\n5"
        assert await say(bash, "bash", command="ls nothing") == (
            "ls: cannot access 'nothing': No such file or directory\n[exit code 2]"
        )


async def test_a_dead_sandbox_is_the_sandboxs_failure():
    async with sandbox() as box:
        bash = BashTool(box)
        await box.close()
        with pytest.raises(SandboxFailure):
            await call(bash, "bash", command="true")


async def test_files_are_created_viewed_and_edited():
    async with sandbox() as box:
        files = FileTools(box)
        assert await say(files, "create", path="src/a.py", content="one\ntwo\nthree\n") == "Created src/a.py."
        assert await say(files, "view", path="src/a.py", first_line=2, last_line=3) == "2  two\n3  three"
        assert await say(files, "view", path=".") == "src/"
        edited = await say(files, "str_replace", path="src/a.py", old="two\n", new="2\n2b\n")
        assert edited == "Edited src/a.py:\n1  one\n2  2\n3  2b\n4  three\n5  "
        assert await say(files, "insert", path="src/a.py", after_line=0, text="zero\n") == (
            "Edited src/a.py:\n1  zero\n2  one\n3  2\n4  2b"
        )
        assert await box.read("src/a.py") == b"zero\none\n2\n2b\nthree\n"
        assert await say(files, "create", path="src/a.py", content="x") == "Replaced src/a.py."


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("view", {"path": "fils.txt"}, r"fils.txt: No such file or directory. Did you mean 'file.txt'?"),
        ("view", {"path": "file.txt", "first_line": 9}, "file.txt has 4 lines."),
        ("view", {"path": "binary"}, "binary is no text file."),
        (
            "str_replace",
            {"path": "file.txt", "old": "a", "new": "b"},
            "`old` occurs 2 times in file.txt, from lines 1, 3",
        ),
        ("str_replace", {"path": "file.txt", "old": "  b\nc", "new": ""}, "Its first line occurs in line 2"),
        ("str_replace", {"path": "file.txt", "old": "", "new": "b"}, "`old` is empty"),
        ("insert", {"path": "file.txt", "after_line": 7, "text": "x"}, "file.txt has 4 lines."),
        ("create", {"path": "file.txt/x", "content": ""}, "Not a directory"),
        ("str_replace", {"path": "folder", "old": "a", "new": "b"}, "folder is a folder."),
    ],
)
async def test_mistakes_are_told_to_the_model(name, arguments, says):
    async with sandbox() as box:
        await box.write("file.txt", b"a\nb\na\n")
        await box.write("binary", b"\xff\xfe\x00")
        await box.write("folder/x", b"")
        result = await call(FileTools(box), name, **arguments)
        assert result.error == "tool_error"
        assert says in result.content


async def test_a_link_out_of_the_workspace_is_not_followed():
    async with sandbox() as box:
        await box.exec("ln -s /etc/passwd stolen")
        result = await call(FileTools(box), "view", path="stolen")
        assert result.error == "tool_error"
        assert "root" not in result.content


async def test_they_are_tools_as_tools_should_be():
    async with sandbox() as box:
        await box.write("a.txt", b"a")
        examples = {
            "python": {"code": "1"},
            "bash": {"command": "echo"},
            "view": {"path": "a.txt"},
            "create": {"path": "b.txt", "content": ""},
            "insert": {"path": "a.txt", "after_line": 0, "text": "b"},
            "str_replace": {"path": "a.txt", "old": "a", "new": "c"},
            "submit": {"answer": "x"},
        }
        for toolset in (PythonTool(box), BashTool(box), FileTools(box), SubmitTool()):
            for offered in toolset.tools:
                await check_tool(offered, examples.pop(offered.name))
        assert not examples


class Quiz(ToolEnvironment):
    @classmethod
    def tasks(cls, split, count, seed=0):
        return [Task("quiz", (Message("user", "?"),))]

    async def reset(self, task, seed):
        self.toolsets = (SubmitTool(),)
        return task.prompt

    async def answer(self, action):
        return Step((Message("user", "judged"),), reward=float(action.content == "42"), terminated=True)


async def test_submitting_ends_the_episode():
    quiz = Quiz()
    await quiz.reset(Quiz.tasks("train", 1)[0], 0)
    step = await quiz.step(Message("assistant", "", (ToolCall("1", "submit", {"answer": "42"}),)))
    assert (step.reward, step.terminated) == (1.0, True)
    assert [message.content for message in step.messages] == ["Submitted.", "judged"]
    assert [result.call.name for result in step.info.tool_results] == ["submit"]
