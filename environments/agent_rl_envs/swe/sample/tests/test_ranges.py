"""Tests of `pantry.ranges`."""

import unittest

from pantry.ranges import busiest, gaps, intersection, merged, overlaps, parse_pages, total_length


class Two(unittest.TestCase):
    def test_overlap(self) -> None:
        self.assertTrue(overlaps((0, 2), (1, 3)))
        self.assertTrue(overlaps((1, 3), (0, 2)))

    def test_touching_is_no_overlap(self) -> None:
        self.assertFalse(overlaps((0, 1), (1, 2)))
        self.assertFalse(overlaps((1, 2), (0, 1)))

    def test_intersection(self) -> None:
        self.assertEqual(intersection((0, 5), (3, 9)), (3, 5))
        self.assertIsNone(intersection((0, 3), (3, 5)))


class Many(unittest.TestCase):
    def test_merged(self) -> None:
        self.assertEqual(merged([(5, 7), (1, 3), (2, 4)]), [(1, 4), (5, 7)])

    def test_touching_become_one(self) -> None:
        self.assertEqual(merged([(1, 2), (2, 3)]), [(1, 3)])

    def test_inside(self) -> None:
        self.assertEqual(merged([(1, 9), (2, 3)]), [(1, 9)])

    def test_empty_ones(self) -> None:
        self.assertEqual(merged([(3, 3), (5, 4)]), [])

    def test_gaps(self) -> None:
        self.assertEqual(gaps([(2, 3), (5, 6)], (0, 8)), [(0, 2), (3, 5), (6, 8)])

    def test_gaps_at_the_edges(self) -> None:
        self.assertEqual(gaps([(-2, 1), (7, 12)], (0, 8)), [(1, 7)])
        self.assertEqual(gaps([(8, 9), (-3, 0)], (0, 8)), [(0, 8)])
        self.assertEqual(gaps([(0, 8)], (0, 8)), [])

    def test_length(self) -> None:
        self.assertEqual(total_length([(0, 2), (1, 4), (6, 7)]), 5)

    def test_busiest(self) -> None:
        self.assertEqual(busiest([(0, 4), (1, 3), (2, 6), (5, 7)]), 3)
        self.assertEqual(busiest([(0, 1), (1, 2)]), 1)
        self.assertEqual(busiest([(2, 2)]), 0)


class Pages(unittest.TestCase):
    def test_reads(self) -> None:
        self.assertEqual(parse_pages("7, 1-3, 2,"), [1, 2, 3, 7])
        self.assertEqual(parse_pages("4-4"), [4])

    def test_backwards(self) -> None:
        with self.assertRaises(ValueError):
            parse_pages("3-1")
