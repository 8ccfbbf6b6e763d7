"""Started and killed by test_journal.py: appends groups and prints each index once the journal has acknowledged it."""

import itertools
import sys
from pathlib import Path

from conftest import example_group

from agent_rl.store.opening import create_journal

with create_journal(Path(sys.argv[1]), store=sys.argv[2]) as journal:
    first = max(journal.load_groups(), default=-1) + 1
    for index in itertools.count(first):
        journal.append_group(example_group(index))
        if index % 2:
            journal.mark_consumed(index // 2, [index - 1, index])
        print(index, flush=True)  # noqa: T201
