"""What the programs here share with the benchmark that drives them.

The benchmark writes lines to standard input: `blow` at each blow, `end` when it is over. The program writes `ready` when
what it carries comes through, and one line of JSON at its end. Times are this process's own, monotonic.
"""

import asyncio
import json
import sys
import time

# For how long after a blow arrivals are looked at, in seconds.
WATCH = 2.5


class Marks:
    """Blows, and arrivals around them."""

    def __init__(self, spacing):
        self.spacing = spacing
        self.blows = []
        self.arrivals = []

    def arrived(self):
        self.arrivals.append(time.monotonic())

    async def until_end(self):
        """Reads what the benchmark says until it is over; a benchmark that is gone has ended, too."""
        loop = asyncio.get_running_loop()
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if line.strip() == "blow":
                self.blows.append(time.monotonic())
            elif line.strip() in ("end", ""):
                return

    def excess_ms(self):
        """For each blow the longest time without an arrival, less the time between arrivals, in milliseconds."""
        found = []
        for blow in self.blows:
            over = blow + WATCH
            before = [at for at in self.arrivals if at < blow][-1:]
            seen = before + [at for at in self.arrivals if blow <= at <= over] + [over]
            gaps = [later - earlier for earlier, later in zip(seen, seen[1:])]
            # A flow that is silent to the end of the watch counts with what was seen of the silence.
            found.append(max(0.0, max(gaps, default=WATCH) - self.spacing) * 1e3)
        return found


def say_ready():
    print("ready", flush=True)


def say_result(**result):
    print(json.dumps(result), flush=True)
