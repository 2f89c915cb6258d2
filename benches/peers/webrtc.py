"""A WebRTC call between two ends made of aiortc, whose media crosses a UDP forward.

    webrtc.py CALLEE_PORT FORWARD_PORT

The callee's socket is at the first port; the caller is told that the callee is at the second, a forward to it, and the
callee is not told where the caller is: it learns that from what arrives (a peer-reflexive candidate, RFC 8445 section
7.3.1.3). So ICE, DTLS and SRTP all go over the forward, both ways, and nowhere else. The caller sends audio, fifty frames a
second. The result: arrivals around blows, frames sent and lost, and whether the call stands at the end.
"""

import asyncio
import fractions
import re
import sys

import aioice.ice
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame

from marks import Marks, say_ready, say_result

RATE = 48_000
SAMPLES = RATE // 50
# Nobody answers at the discard port; a list of candidates must not be empty.
NOWHERE = 9


class Tone(MediaStreamTrack):
    """Frames of 20 ms, as from a microphone."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.sent = 0
        self.began = None

    async def recv(self):
        loop = asyncio.get_running_loop()
        self.began = self.began or loop.time()
        await asyncio.sleep(max(0.0, self.began + self.sent * SAMPLES / RATE - loop.time()))
        frame = AudioFrame(format="s16", layout="mono", samples=SAMPLES)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate, frame.pts = RATE, self.sent * SAMPLES
        frame.time_base = fractions.Fraction(1, RATE)
        self.sent += 1
        return frame


def only_candidate(description, port):
    """The same description with one candidate, at a port of loopback."""
    lines = description.sdp.splitlines()
    candidates = [line for line in lines if line.startswith("a=candidate:")]
    one = re.sub(r"( 127\.0\.0\.1) \d+ ", rf"\1 {port} ", candidates[0])
    at = lines.index(candidates[0])
    kept = [line for line in lines if not line.startswith("a=candidate:")]
    kept.insert(at, one)
    return RTCSessionDescription(sdp="\r\n".join(kept) + "\r\n", type=description.type)


async def received(track, marks, lost):
    last = None
    while True:
        frame = await track.recv()
        # Frames leave by the media's own clock.
        marks.arrived(frame.pts // SAMPLES, frame.pts / RATE)
        if last is not None:
            lost.append(max(0, (frame.pts - last) // SAMPLES - 1))
        last = frame.pts
        if len(marks.arrivals) == 50:
            say_ready()


async def run(callee_port, forward_port):
    loop = asyncio.get_running_loop()
    # Loopback is all there is; and the callee's port has to be known beforehand.
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    create = loop.create_datagram_endpoint
    fixed = []

    async def create_endpoint(factory, local_addr=None, **more):
        if fixed and local_addr is not None:
            local_addr = (local_addr[0], fixed.pop())
        return await create(factory, local_addr=local_addr, **more)

    loop.create_datagram_endpoint = create_endpoint

    lost, tone = [], Tone()
    caller, callee = RTCPeerConnection(), RTCPeerConnection()
    ends = {"caller": caller, "callee": callee}
    marks = Marks(lambda: ", ".join(f"the {it} is {end.connectionState}" for it, end in ends.items()))
    tasks = []

    @callee.on("track")
    def on_track(track):
        tasks.append(asyncio.ensure_future(received(track, marks, lost)))

    caller.addTrack(tone)
    await caller.setLocalDescription(await caller.createOffer())
    await callee.setRemoteDescription(only_candidate(caller.localDescription, NOWHERE))
    fixed.append(callee_port)
    await callee.setLocalDescription(await callee.createAnswer())
    await caller.setRemoteDescription(only_candidate(callee.localDescription, forward_port))

    await marks.until_end()
    stands = caller.connectionState == callee.connectionState == "connected"
    told = marks.told()
    say_result(**told, sent=tone.sent, lost=sum(lost), call_stands=stands)
    for task in tasks:
        task.cancel()
    await asyncio.gather(caller.close(), callee.close())


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))
