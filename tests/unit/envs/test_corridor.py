"""The rules of the corridor: which door leads on, and what a move looks like."""

from __future__ import annotations

import pytest

from agent_rl.types import Message, Step, Task
from agent_rl_envs.games.corridor import DOORS, Corridor, CorridorConfig

pytestmark = pytest.mark.anyio


async def opened(config: CorridorConfig) -> tuple[Corridor, Task]:
    task = Corridor.tasks("train", 1, config=config)[0]
    corridor = Corridor(config)
    await corridor.reset(task, 0)
    return corridor, task


async def say(corridor: Corridor, text: str) -> Step:
    return await corridor.step(Message("assistant", text))


async def test_only_the_door_of_the_colour_leads_on_and_a_wrong_one_costs_the_move() -> None:
    corridor, task = await opened(CorridorConfig(rooms=2, moves=3, weights={"progress": 1.0}))
    first, second = task.data["signs"]
    wrong = next(door for color, door in DOORS.items() if color != first)
    step = await say(corridor, f"1 {first} {wrong}")
    assert (step.reward, corridor.state, step.messages[0].content) == (0.0, 0, f"Room 1: {first}.")
    step = await say(corridor, f"1 {first} {DOORS[first]}")
    assert (step.reward, corridor.state, step.messages[0].content) == (0.5, 1, f"Room 2: {second}.")
    step = await say(corridor, f"2 {second} {DOORS[second]}")
    assert (step.reward, step.terminated, step.messages[0].content) == (0.5, True, "You are out.")


async def test_when_the_moves_are_used_up_the_game_is_lost() -> None:
    corridor, _ = await opened(CorridorConfig(rooms=2, moves=1))
    step = await corridor.step(corridor.oracle_action())
    assert (step.reward, step.terminated) == (0.0, True)
    assert step.messages[0].content.endswith("No turns are left.")


async def test_a_move_names_the_room_its_sign_and_one_door() -> None:
    corridor, task = await opened(CorridorConfig())
    sign = task.data["signs"][0]
    for text in ("north", f"2 {sign} north", "1 pink north", f"1 {sign} up", f"1 {sign} north south"):
        step = await say(corridor, text)
        assert step.info.reward_terms["malformed"] == 1.0
        assert step.messages[0].content == f"Say the room, its sign and a door.\nRoom 1: {sign}."
    assert (await say(corridor, f"1 {sign} north")).info.reward_terms["malformed"] == 0.0


async def test_the_prompt_tells_neither_doors_nor_later_signs() -> None:
    _, task = await opened(CorridorConfig())
    (prompt,) = task.prompt
    assert prompt.content == (f"4 rooms, 8 moves. Say the room, its sign and a door.\nRoom 1: {task.data['signs'][0]}.")
