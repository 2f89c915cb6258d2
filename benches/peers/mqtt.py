"""An MQTT broker (mosquitto), and a publisher and a subscriber (paho-mqtt) that reach it through sidecars.

    mqtt.py BROKER_PORT PUBLISHER_PORT SUBSCRIBER_PORT

The broker listens at the first port; the clients connect to the other two, which are forwards to it. Fifty messages a
second are published with QoS 1. The result: arrivals around blows, messages lost and delivered twice, and whether both
clients kept their one TCP connection.
"""

import asyncio
import ctypes
import getpass
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import paho.mqtt.client as mqtt

from marks import Marks, say_ready, say_result

SPACING = 0.02
TOPIC = "overway/bench"
# How long the last messages may take to arrive when the publisher has ended.
DRAIN = 30.0
# Of prctl(2).
PR_SET_PDEATHSIG = 1


def broker(port, directory):
    path = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    config = pathlib.Path(directory) / "mosquitto.conf"
    # As the same user, or the system would forget that it is to end with this program, however this ends.
    user = f"user {getpass.getuser()}"
    lines = [f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0", user]
    config.write_text("\n".join(lines) + "\n")
    set_death_signal = ctypes.CDLL(None).prctl
    return subprocess.Popen(
        [path, "-c", str(config)],
        stdout=sys.stderr,
        stderr=sys.stderr,
        preexec_fn=lambda: set_death_signal(PR_SET_PDEATHSIG, signal.SIGKILL),
    )


class Client:
    """A client that counts its connections."""

    def __init__(self, name, port, on_message=None):
        self.connections = 0
        self.losses = 0
        self.connected = threading.Event()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, clean_session=False
        )
        self.client.reconnect_delay_set(1, 1)
        self.client.max_inflight_messages_set(1_000)
        self.client.on_message = on_message
        self.client.on_connect = self.on_connect
        self.client.on_disconnect = self.on_disconnect
        self.client.connect_async("127.0.0.1", port, keepalive=60)
        self.client.loop_start()

    def on_connect(self, client, userdata, flags, reason, properties):
        if not reason.is_failure:
            self.connections += 1
            if client.on_message is not None:
                client.subscribe(TOPIC, qos=1)
            self.connected.set()

    def on_disconnect(self, *_):
        self.losses += 1

    def kept_one_connection(self):
        return (self.connections, self.losses) == (1, 0)


async def run(broker_port, publisher_port, subscriber_port):
    clients = {}
    marks = Marks(
        lambda: ", ".join(
            f"the {name} has connected {client.connections} times and lost it {client.losses} times"
            for name, client in clients.items()
        )
    )
    received, sent = {}, []

    def on_message(client, userdata, message):
        number = int(message.payload)
        received[number] = received.get(number, 0) + 1
        if received[number] == 1:
            marks.arrived(number, sent[number])

    loop = asyncio.get_running_loop()
    subscriber = Client("bench-subscriber", subscriber_port, on_message)
    publisher = Client("bench-publisher", publisher_port)
    clients.update(publisher=publisher, subscriber=subscriber)
    for client in clients.values():
        if not await loop.run_in_executor(None, client.connected.wait, 30):
            sys.exit("a client has no connection after 30 seconds")

    published = 0
    ending = asyncio.ensure_future(marks.until_end())
    began = loop.time()
    ready = False
    while not ending.done():
        sent.append(time.monotonic())
        publisher.client.publish(TOPIC, str(published), qos=1)
        published += 1
        if received and not ready:
            say_ready()
            ready = True
        await asyncio.sleep(max(0.0, began + published * SPACING - loop.time()))

    told = marks.told()
    deadline = loop.time() + DRAIN
    # What was published before the subscription stood is nobody's loss.
    first = min(received, default=0)
    while len(received) < published - first and loop.time() < deadline:
        await asyncio.sleep(0.1)
    kept = all(client.kept_one_connection() for client in clients.values())
    say_result(
        **told,
        sent=published - first,
        lost=published - first - len(received),
        duplicates=sum(count - 1 for count in received.values()),
        tcp_connections_survived=kept,
    )
    for client in clients.values():
        client.client.loop_stop()


def main():
    ports = [int(port) for port in sys.argv[1:4]]
    with tempfile.TemporaryDirectory() as directory:
        served = broker(ports[0], directory)
        try:
            asyncio.run(run(*ports))
        finally:
            served.kill()
            served.wait()


if __name__ == "__main__":
    main()
