"""`corridor`: find out which door the colour of a sign stands for, room after room; nobody says it.

The only way to learn it is to try doors in many episodes, and by default the only reward comes with the last room: a
game for methods that have to tell which of many moves was worth something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field

from agent_rl.types import JSON, Message
from agent_rl_envs.games.game import Game, GameConfig, Malformed, Outcome, Puzzle, move_of

DOORS = {"red": "north", "blue": "south", "green": "west", "yellow": "east"}
"""Which door leads on, by the colour of the sign: the same in all puzzles."""

_HOW = "Say the room, its sign and a door."


class CorridorConfig(GameConfig):
    """Options of `corridor`."""

    rooms: int = Field(default=4, ge=1, description="Rooms one after the other.")
    moves: int = Field(default=8, ge=1, description="Moves that are allowed.")


class Corridor(Game[CorridorConfig, int]):
    """One row of rooms with a sign in each; the state is the room, counted from 0."""

    id = "corridor"
    config_type = CorridorConfig

    @classmethod
    def puzzle(cls, rng: np.random.Generator, config: CorridorConfig) -> Puzzle:
        """Any colours."""
        signs = [list(DOORS)[i] for i in rng.integers(len(DOORS), size=config.rooms)]
        prompt = f"{config.rooms} rooms, {config.moves} moves. {_HOW}\n{_seen(signs, 0)}"
        return Puzzle({"signs": signs}, prompt, config.moves, (f"rooms_{config.rooms}",))

    def start(self, data: JSON, seed: int) -> int:
        """The first room."""
        self._signs: list[str] = data["signs"]
        return 0

    def play(self, text: str) -> Outcome[int]:
        """Through the right door into the next room; a wrong one costs the move. Progress: a room."""
        words = move_of(text).split()
        if words[:2] != self._named() or words[2:] not in [[door] for door in DOORS.values()]:
            raise Malformed(f"{_HOW}\n{_seen(self._signs, self.state)}")
        if words[2] != self._right_door():
            return Outcome(self.state, _seen(self._signs, self.state))
        room, progress = self.state + 1, 1 / len(self._signs)
        if room == len(self._signs):
            return Outcome(room, "You are out.", progress, solved=True)
        return Outcome(room, _seen(self._signs, room), progress)

    def oracle_action(self) -> Message:
        """The door that leads on."""
        return self._through(self._right_door())

    def random_action(self, rng: np.random.Generator) -> Message:
        """Any door."""
        return self._through(list(DOORS.values())[int(rng.integers(len(DOORS)))])

    def cheats(self) -> Mapping[str, Sequence[Message]]:
        """One door for ever, all doors at once, and the words for a win."""
        return {
            "constant door": [self._through("north")] * self._turns_left,
            "all doors at once": [self._through(" ".join(DOORS.values()))] * self._turns_left,
            "claim": [Message("assistant", "You are out.")] * self._turns_left,
        }

    def _right_door(self) -> str:
        return DOORS[self._signs[self.state]]

    def _named(self) -> list[str]:
        return [str(self.state + 1), self._signs[self.state]]

    def _through(self, door: str) -> Message:
        return Message("assistant", " ".join([*self._named(), door]))


def _seen(signs: Sequence[str], room: int) -> str:
    return f"Room {room + 1}: {signs[room]}."
