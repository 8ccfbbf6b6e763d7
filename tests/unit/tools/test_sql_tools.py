"""`schema` and `query` on SQLite; on servers they are tested with the SQL environment."""

import threading
import time

import anyio
import pytest
from sqlalchemy import create_engine

from agent_rl import ToolCall, run_tool_calls
from agent_rl.errors import ToolFailure
from agent_rl.testing import check_tool
from agent_rl_tools.sql import SqlTools

pytestmark = pytest.mark.anyio
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def engine(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)")
        connection.exec_driver_sql("CREATE TABLE sale (item_id INTEGER REFERENCES item (id), price REAL, note TEXT)")
        connection.exec_driver_sql("CREATE VIEW cheap AS SELECT * FROM sale WHERE price < 1")
        connection.exec_driver_sql("INSERT INTO item VALUES (1, 'hat'), (2, 'a % sign')")
        connection.exec_driver_sql("INSERT INTO sale VALUES (1, 2.5, NULL)")
    yield engine
    engine.dispose()


@pytest.fixture
async def tools(engine):
    tools = SqlTools(engine, timeout_s=1.0, max_rows=2)
    yield tools
    await tools.close()


async def query(tools, sql):
    [result] = await run_tool_calls(tools.tools, [ToolCall("1", "query", {"sql": sql})])
    return result


async def test_the_schema_has_keys_and_views(tools):
    assert await tools.schema.function() == (
        "table item (id INTEGER primary key, name TEXT)\n"
        "table sale (item_id INTEGER, price REAL, note TEXT, foreign key (item_id) references item (id))\n"
        "view cheap (item_id INTEGER, price REAL, note TEXT)"
    )


async def test_rows_have_names_and_a_cap(tools):
    assert (await query(tools, "SELECT * FROM sale")).content == "item_id | price | note\n1 | 2.5 | NULL"
    assert (await query(tools, "SELECT * FROM sale WHERE price > 9")).content == "item_id | price | note\n(no rows)"
    assert (await query(tools, "SELECT name FROM item WHERE name LIKE '%\\%%' ESCAPE '\\'")).content == "name\na % sign"
    many = (await query(tools, "SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3")).content
    assert many == "n\n1\n2\n(more than 2 rows; only the first are shown)"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM item",
        "INSERT INTO item VALUES (3, 'x')",
        "DROP TABLE item",
        "PRAGMA query_only = 0",
        "PRAGMA writable_schema = 1",
        "ATTACH DATABASE '/tmp/x.db' AS x",
        "VACUUM INTO '/tmp/copy.db'",
        "CREATE TEMP TABLE t (a)",
        "BEGIN",
    ],
)
async def test_nothing_can_be_written(tools, engine, sql):
    result = await query(tools, sql)
    assert result.error == "tool_error"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM item").scalar() == 2


async def test_a_mistake_is_told_to_the_model(tools):
    assert (await query(tools, "SELECT nome FROM item")).content == "SQL error: no such column: nome"


async def test_an_endless_query_is_stopped_in_the_database(tools):
    result = await query(tools, ENDLESS)
    assert "stopped" in result.content
    began = time.process_time()
    await anyio.sleep(0.3)
    assert time.process_time() - began < 0.2, "the statement must not go on in its thread"
    assert (await query(tools, "SELECT 1 AS n")).content == "n\n1"


@pytest.mark.parametrize("after_s", [0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05])
async def test_a_cancelled_query_is_stopped_as_well(tools, after_s):
    await query(tools, "SELECT 1")
    threads = threading.active_count()
    with anyio.move_on_after(after_s):
        await query(tools, ENDLESS)
    began = time.process_time()
    await anyio.sleep(0.3)
    assert time.process_time() - began < 0.2, "the statement must not go on in its thread"
    assert threading.active_count() <= threads + 2, "one that worked and one that interrupted, both idle"
    assert (await query(tools, "SELECT 1 AS n")).content == "n\n1"


async def test_a_database_that_is_not_there_is_a_failure():
    tools = SqlTools(create_engine("sqlite:////no/such/folder/x.db"))
    with pytest.raises(ToolFailure, match="cannot be reached"):
        await query(tools, "SELECT 1")


async def test_they_are_tools_as_tools_should_be(tools):
    for offered, example in zip(tools.tools, ({}, {"sql": "SELECT 1"}), strict=True):
        await check_tool(offered, example)
