"""Tests of `pantry.sequences`."""

import unittest

from pantry.sequences import (
    chunks,
    flatten,
    group_by,
    insertion_point,
    longest_increasing,
    merge_sorted,
    partition,
    rotate,
    run_lengths,
    unique,
    windows,
)


class Parts(unittest.TestCase):
    def test_chunks(self) -> None:
        self.assertEqual(chunks([1, 2, 3, 4, 5], 2), [[1, 2], [3, 4], [5]])
        self.assertEqual(chunks([1, 2], 1), [[1], [2]])

    def test_windows(self) -> None:
        self.assertEqual(windows([1, 2, 3, 4], 2), [(1, 2), (2, 3), (3, 4)])
        self.assertEqual(windows([1, 2, 3, 4], 2, step=2), [(1, 2), (3, 4)])
        self.assertEqual(windows([1], 2), [])

    def test_sizes(self) -> None:
        for wrong in (lambda: chunks([1], 0), lambda: windows([1], 0), lambda: windows([1], 1, 0)):
            with self.assertRaises(ValueError):
                wrong()

    def test_rotate(self) -> None:
        self.assertEqual(rotate([1, 2, 3, 4], 1), [2, 3, 4, 1])
        self.assertEqual(rotate([1, 2, 3, 4], -1), [4, 1, 2, 3])
        self.assertEqual(rotate([1, 2, 3], 4), [2, 3, 1])
        self.assertEqual(rotate([], 3), [])

    def test_partition(self) -> None:
        self.assertEqual(partition([1, 2, 3, 4], lambda n: n > 2), ([3, 4], [1, 2]))


class Same(unittest.TestCase):
    def test_unique(self) -> None:
        self.assertEqual(unique([3, 1, 3, 2, 1]), [3, 1, 2])

    def test_unique_by_key(self) -> None:
        self.assertEqual(unique(["a", "B", "A", "b"], str.lower), ["a", "B"])

    def test_runs(self) -> None:
        self.assertEqual(run_lengths("aabccc"), [("a", 2), ("b", 1), ("c", 3)])
        self.assertEqual(run_lengths(""), [])

    def test_groups(self) -> None:
        self.assertEqual(group_by([1, 2, 3, 4], lambda n: n % 2), {1: [1, 3], 0: [2, 4]})


class Nested(unittest.TestCase):
    def test_all(self) -> None:
        self.assertEqual(flatten([1, [2, (3, [4])], []]), [1, 2, 3, 4])

    def test_some(self) -> None:
        self.assertEqual(flatten([1, [2, [3, [4]]]], depth=1), [1, 2, [3, [4]]])
        self.assertEqual(flatten([[1], 2], depth=0), [[1], 2])


class Sorted(unittest.TestCase):
    def test_insertion_point(self) -> None:
        self.assertEqual([insertion_point([1, 3, 3, 5], n) for n in (0, 1, 3, 4, 9)], [0, 0, 1, 3, 4])

    def test_merge(self) -> None:
        self.assertEqual(merge_sorted([1, 4, 6], [2, 4, 5]), [1, 2, 4, 4, 5, 6])
        self.assertEqual(merge_sorted([], [1]), [1])
        self.assertEqual(merge_sorted([1, 2], []), [1, 2])

    def test_increasing(self) -> None:
        self.assertEqual(longest_increasing([5, 1, 2, 3, 2, 9]), [1, 2, 3])
        self.assertEqual(longest_increasing([1, 1, 2]), [1, 2])
        self.assertEqual(longest_increasing([1, 2, 1, 2]), [1, 2])
