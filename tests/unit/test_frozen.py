"""`@record` makes what `dataclass(frozen=True, slots=True)` makes."""

import copy
import dataclasses
import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field

import pytest

from agent_rl.frozen import record


@record
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


@record(eq=False)
class Box:
    x: int


@dataclass(frozen=True, slots=True)
class Plain:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)


def test_it_is_made_as_a_dataclass_is():
    assert Point(1) == Point(x=1, y=2, tags=[])
    assert Point(1).tags is not Point(1).tags
    assert repr(Point(1, 3)) == "Point(x=1, y=3, tags=[])"
    assert Point(1, tags=["a"]).tags == ["a"]
    assert [(p.name, p.annotation) for p in inspect.signature(Point).parameters.values()] == [
        (p.name, p.annotation) for p in inspect.signature(Plain).parameters.values()
    ]


@pytest.mark.parametrize("arguments", [{}, {"x": 1, "z": 2}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(TypeError, match=r"Point\.__init__\(\)"):
        Point(**arguments)


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Point(1).x = 2


def test_without_eq_it_is_compared_by_identity():
    assert Box(1) != Box(1)
    assert len({Box(1), Box(1)}) == 2


def test_it_is_copied_replaced_and_pickled():
    point = Point(1, 2, ["a"])
    assert pickle.loads(pickle.dumps(point)) == copy.deepcopy(point) == dataclasses.replace(point) == point
    assert dataclasses.replace(point, x=5).x == 5
