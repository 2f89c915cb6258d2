"""What the programs here share with the benchmark that drives them.

The benchmark writes lines to standard input: `blow` at each blow, `end` when it is over. The program writes `ready` when
what it carries comes through, and one line of JSON at its end. Times are this process's own, monotonic.
"""

import asyncio
import json
import sys
import time

# For how long before and after a blow arrivals are told, in seconds.
BEFORE = 1.0
WATCH = 2.5


def nanoseconds(seconds):
    return int(seconds * 1e9)


class Marks:
    """Blows, and arrivals around them."""

    def __init__(self):
        self.blows = []
        self.arrivals = []

    def arrived(self, number, sent):
        """The message or frame of this number came, which was sent at this time, on whatever clock."""
        self.arrivals.append((number, sent, time.monotonic()))

    async def until_end(self):
        """Reads what the benchmark says until it is over; a benchmark that is gone has ended, too."""
        loop = asyncio.get_running_loop()
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if line.strip() == "blow":
                self.blows.append(time.monotonic())
            elif line.strip() in ("end", ""):
                return

    def told(self):
        """For each blow its time, the end of the watch, and the arrivals around it: number, sent, received, in order.

        In nanoseconds. Times of sending are moved so that the shortest delay of all is none: how much delays grow is what
        counts, and a clock of the media has another origin than this process's.
        """
        least = min((received - sent for _, sent, received in self.arrivals), default=0.0)
        found = []
        for blow in self.blows:
            over = blow + WATCH
            near = [
                [number, nanoseconds(sent + least), nanoseconds(received)]
                for number, sent, received in self.arrivals
                if blow - BEFORE <= received <= over
            ]
            found.append({"at": nanoseconds(blow), "over": nanoseconds(over), "arrivals": near})
        return found


def say_ready():
    print("ready", flush=True)


def say_result(**result):
    print(json.dumps(result), flush=True)
