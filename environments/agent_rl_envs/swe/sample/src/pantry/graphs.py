"""Graphs as neighbours by node."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Graph = Mapping[str, Iterable[str]]


def reachable(graph: Graph, start: str) -> set[str]:
    """All nodes that can be reached, the start included."""
    found = {start}
    waiting = [start]
    while waiting:
        for node in graph.get(waiting.pop(), ()):
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def shortest_path(graph: Graph, start: str, end: str) -> list[str]:
    """A path with as few steps as can be; empty if there is none."""
    came_from: dict[str, str] = {start: ""}
    layer = [start]
    while layer and end not in came_from:
        following: list[str] = []
        for node in layer:
            for neighbour in sorted(graph.get(node, ())):
                if neighbour not in came_from:
                    came_from[neighbour] = node
                    following.append(neighbour)
        layer = following
    if end not in came_from:
        return []
    path = [end]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]


def in_order(needs: Graph) -> list[str]:
    """Nodes after all that they need, by name where there is a choice; a circle is an error."""
    left = {node: set(wanted) for node, wanted in needs.items()}
    for wanted in list(left.values()):
        for node in wanted:
            left.setdefault(node, set())
    order: list[str] = []
    while left:
        ready = sorted(node for node, wanted in left.items() if not wanted)
        if not ready:
            raise ValueError("they need each other")
        first = ready[0]
        order.append(first)
        del left[first]
        for wanted in left.values():
            wanted.discard(first)
    return order


def cheapest(prices: Mapping[str, Mapping[str, float]], start: str, end: str) -> float:
    """The lowest sum of prices on a way; infinite if there is none."""
    best = {start: 0.0}
    done: set[str] = set()
    while True:
        open_nodes = [node for node in best if node not in done]
        if not open_nodes:
            return best.get(end, float("inf"))
        node = min(open_nodes, key=lambda name: best[name])
        done.add(node)
        for neighbour, price in prices.get(node, {}).items():
            if price < 0:
                raise ValueError("a price is negative")
            if best[node] + price < best.get(neighbour, float("inf")):
                best[neighbour] = best[node] + price


def components(graph: Graph) -> list[list[str]]:
    """Nodes that hang together, whatever the direction; each group sorted, the largest first."""
    both: dict[str, set[str]] = {}
    for node, neighbours in graph.items():
        both.setdefault(node, set())
        for neighbour in neighbours:
            both[node].add(neighbour)
            both.setdefault(neighbour, set()).add(node)
    groups: list[list[str]] = []
    seen: set[str] = set()
    for node in sorted(both):
        if node not in seen:
            group = reachable(both, node)
            seen |= group
            groups.append(sorted(group))
    return sorted(groups, key=len, reverse=True)
