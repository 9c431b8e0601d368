"""A process that writes to a store, for tests that need more than one process.

    python -m tests.router.stores.writer FILE FIRST COUNT [SHARED...]

Records decisions FIRST, FIRST + 1, ... and rewards each with the row (1, id). An id is printed once its reward is
acknowledged. Waits for a line before it starts and, after the SHARED decisions were rewarded too, prints how many of
these rewards were counted.
"""

from __future__ import annotations

import sys
from contextlib import closing

from router.call import Batch
from router.stores.sqlite import SQLiteStore
from tests.router.stores.words import credit, credited, decided, decision


def say(word: object) -> None:
    print(word, flush=True)  # noqa: T201  # its parent process reads it


def main(file: str, first: str, count: str, *shared: str) -> None:
    with closing(SQLiteStore(file, busy_timeout=60)) as store:
        say("ready")
        input()
        for n in range(int(first), int(first) + int(count)):
            id = f"{n:08d}"
            # Half of them in one commit, half in two.
            if n % 2:
                store.commit(Batch([decision(id)], [credit(id, [1, n], value=n)]))
            else:
                store.commit(decided(id))
                store.commit(credited(credit(id, [1, n], value=n)))
            say(id)
        counted = sum(sum(store.commit(credited(credit(id, [1, 1], layout="shared")))) for id in shared)
        say(counted)


if __name__ == "__main__":
    main(*sys.argv[1:])
