"""Tests of `pantry.graphs`."""

import unittest

from pantry.graphs import cheapest, components, in_order, reachable, shortest_path

ROADS = {"a": ["b", "c"], "b": ["d"], "c": ["d", "e"], "d": ["f"], "e": ["f"], "x": ["y"]}


class Ways(unittest.TestCase):
    def test_reachable(self) -> None:
        self.assertEqual(reachable(ROADS, "c"), {"c", "d", "e", "f"})
        self.assertEqual(reachable(ROADS, "y"), {"y"})

    def test_shortest(self) -> None:
        self.assertEqual(shortest_path(ROADS, "a", "f"), ["a", "b", "d", "f"])
        self.assertEqual(shortest_path(ROADS, "a", "a"), ["a"])

    def test_no_way(self) -> None:
        self.assertEqual(shortest_path(ROADS, "a", "x"), [])

    def test_circles(self) -> None:
        self.assertEqual(reachable({"a": ["b"], "b": ["a"]}, "a"), {"a", "b"})
        self.assertEqual(shortest_path({"a": ["b"], "b": ["a", "c"]}, "a", "c"), ["a", "b", "c"])


class Order(unittest.TestCase):
    def test_needs(self) -> None:
        self.assertEqual(
            in_order({"cake": ["dough", "oven"], "dough": ["flour"], "oven": []}), ["flour", "dough", "oven", "cake"]
        )

    def test_circle(self) -> None:
        with self.assertRaises(ValueError):
            in_order({"a": ["b"], "b": ["a"]})

    def test_keeps_what_it_was_given(self) -> None:
        needs = {"b": ["a"]}
        in_order(needs)
        self.assertEqual(needs, {"b": ["a"]})


class Prices(unittest.TestCase):
    def test_detour(self) -> None:
        self.assertEqual(cheapest({"a": {"b": 9, "c": 2}, "c": {"b": 3}}, "a", "b"), 5)

    def test_here(self) -> None:
        self.assertEqual(cheapest({}, "a", "a"), 0)

    def test_no_way(self) -> None:
        self.assertEqual(cheapest({"a": {"b": 1}}, "b", "a"), float("inf"))

    def test_negative(self) -> None:
        with self.assertRaises(ValueError):
            cheapest({"a": {"b": -1}}, "a", "b")


class Components(unittest.TestCase):
    def test_groups(self) -> None:
        self.assertEqual(components(ROADS), [["a", "b", "c", "d", "e", "f"], ["x", "y"]])

    def test_single(self) -> None:
        self.assertEqual(components({"b": [], "a": []}), [["a"], ["b"]])
