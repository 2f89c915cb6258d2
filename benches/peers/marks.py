"""What the programs here share with the benchmark that drives them.

The benchmark writes lines to standard input: `steady` before each blow, `blow` at it, `end` when it is over. The program
writes `ready` when what it carries comes through, `steady` once it has come evenly for a second, or how things stand if it
has not for long, and one line of JSON at its end. Times are this process's own, monotonic.
"""

import asyncio
import json
import sys
import time

# For how long before and after a blow arrivals are told, in seconds.
BEFORE = 1.0
WATCH = 2.5
# Half of the fifty a second that are sent: evenly enough.
STEADY = 25
STEADY_WITHIN = 20.0
# The program looks at the clock so often, and notes where it could not for longer, in seconds: a machine that is too busy.
TICK = 0.01
STALL = 0.1


def nanoseconds(seconds):
    return int(seconds * 1e9)


class Marks:
    """Blows, and arrivals around them. `state` says for people how things stand."""

    def __init__(self, state):
        self.state = state
        self.blows = []
        self.arrivals = []
        self.stalls = []

    def arrived(self, number, sent):
        """The message or frame of this number came, which was sent at this time, on whatever clock."""
        self.arrivals.append((number, sent, time.monotonic()))

    async def until_end(self):
        """Reads what the benchmark says until it is over; a benchmark that is gone has ended, too."""
        loop = asyncio.get_running_loop()
        watching = asyncio.ensure_future(self.watch_itself())
        while True:
            line = await loop.run_in_executor(None, sys.stdin.readline)
            if line.strip() == "steady":
                print("steady" if await self.steady() else self.state(), flush=True)
            elif line.strip() == "blow":
                self.blows.append(time.monotonic())
            elif line.strip() in ("end", ""):
                watching.cancel()
                return

    async def watch_itself(self):
        """Notes when this program stood still, so that it is not taken for silence of the network."""
        last = time.monotonic()
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            if now - last > STALL:
                self.stalls.append((last, now))
            last = now

    async def steady(self):
        """Waits until what is carried has come evenly for a second, and whether it has."""
        until = time.monotonic() + STEADY_WITHIN
        while time.monotonic() < until:
            since = time.monotonic() - BEFORE
            if len(self.arrivals) >= STEADY and self.arrivals[-STEADY][2] >= since:
                return True
            await asyncio.sleep(TICK)
        return False

    def silence_between(self, ended):
        """The longest time in which nothing came, in no watch of a blow, but for when this program stood still."""
        times = [received for _, _, received in self.arrivals] + [ended]
        watches = [(blow, blow + WATCH) for blow in self.blows]
        known = watches + self.stalls
        return max((uncovered(span, known) for span in zip(times, times[1:])), default=0.0)

    def stood_still(self):
        """The longest time in which this program stood still."""
        return max((until - since for since, until in self.stalls), default=0.0)

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
        return {
            "blows": found,
            "silence_between": nanoseconds(self.silence_between(time.monotonic())),
            "stood_still": nanoseconds(self.stood_still()),
        }


def uncovered(span, spans):
    """How much of a span of time lies in none of the others."""
    since, until = span
    left = until - since
    at = since
    for start, end in sorted(spans):
        start, end = max(start, at), min(end, until)
        if end > start:
            left -= end - start
            at = end
    return left


def say_ready():
    print("ready", flush=True)


def say_result(**result):
    print(json.dumps(result), flush=True)
