"""What any program does with a broker, by paho-mqtt.

Usage: paho_talk.py {mqtt|mqtts|ws|wss}://HOST PORT {3.1.1|5} TALK [ARGUMENT...]

With mqtts and wss the environment's TALK_CA is the file of the authority to trust.

Prints a line for each fact it has seen; the first that is not so ends it with
an error.
"""

import os
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 30
PROTOCOL, HOST = sys.argv[1].split("://")
PORT, VERSION, TALK = int(sys.argv[2]), sys.argv[3], sys.argv[4]
ARGUMENTS = sys.argv[5:]
V5 = VERSION == "5"


def fact(holds, text):
    if not holds:
        sys.exit("not so: " + text)
    print(text, flush=True)


class Client:
    """paho's client with its callbacks turned into queues."""

    def __init__(self, name, persistent=False, will=None):
        self.arrived, self.connected, self.subscribed = (queue.Queue() for _ in range(3))
        how = {} if V5 else {"clean_session": not persistent}
        self.paho = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
            transport="websockets" if PROTOCOL.startswith("ws") else "tcp",
            **how,
        )
        self.paho.on_connect = lambda c, u, flags, code, p: self.connected.put((flags, code))
        self.paho.on_subscribe = lambda c, u, mid, codes, p: self.subscribed.put(codes)
        self.paho.on_message = lambda c, u, message: self.arrived.put(message)
        if will:
            self.paho.will_set(will[0], will[1], qos=1)
        options = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if persistent else 0
            options = {"clean_start": not persistent, "properties": properties}
        if PROTOCOL in ("mqtts", "wss"):
            self.paho.tls_set(ca_certs=os.environ["TALK_CA"])
        self.paho.connect(HOST, PORT, keepalive=30, **options)
        self.paho.loop_start()
        flags, code = self.connected.get(timeout=PATIENCE_S)
        fact(not code.is_failure, f"{name} is connected")
        self.session_present = flags.session_present

    def subscribe(self, topic, qos):
        self.paho.subscribe(topic, qos)
        codes = self.subscribed.get(timeout=PATIENCE_S)
        fact([code.value for code in codes] == [qos], f"subscribed to {topic} at QoS {qos}")

    def publish(self, topic, payload, qos, retain=False):
        sent = self.paho.publish(topic, payload, qos, retain)
        sent.wait_for_publish(PATIENCE_S)
        if not sent.is_published():
            sys.exit(f"not acknowledged: {topic}")

    def take(self):
        return self.arrived.get(timeout=PATIENCE_S)

    def leave(self):
        self.paho.disconnect()
        self.paho.loop_stop()

    def cut(self):
        """As a power cut: the connection ends without DISCONNECT."""
        self.paho.loop_stop()
        self.paho.socket().close()


def live():
    client = Client("paho-live")
    client.subscribe("chat/+", 2)
    for qos in (0, 1, 2):
        client.publish(f"chat/{qos}", f"hello {qos}", qos)
        message = client.take()
        seen = (message.topic, message.payload.decode(), message.qos, message.retain)
        fact(seen == (f"chat/{qos}", f"hello {qos}", qos, False), f"QoS {qos} came as it was sent")
    client.paho.unsubscribe("chat/+")
    client.leave()


def retained():
    publisher = Client("paho-retaining")
    publisher.publish("state/door", "open", 1, retain=True)
    reader = Client("paho-reader")
    reader.subscribe("state/#", 1)
    message = reader.take()
    fact((message.payload, message.retain) == (b"open", True), "a new subscriber got the retained message")
    publisher.publish("state/door", "", 1, retain=True)
    cleared = reader.take()
    fact((cleared.payload, cleared.retain) == (b"", False), "clearing it is seen")
    late = Client("paho-late")
    late.subscribe("state/#", 1)
    publisher.publish("state/window", "shut", 1)
    message = late.take()
    fact(message.topic == "state/window", "what was cleared comes no more")
    for client in (publisher, reader, late):
        client.leave()


def will():
    watcher = Client("paho-watcher")
    watcher.subscribe("gone/+", 1)
    Client("paho-orderly", will=("gone/orderly", "gone")).leave()
    Client("paho-mortal", will=("gone/mortal", "gone")).cut()
    message = watcher.take()
    fact((message.topic, message.payload) == ("gone/mortal", b"gone"), "the will of the one that was cut came")
    watcher.leave()


def session():
    sleeper = Client("paho-sleeper", persistent=True)
    fact(not sleeper.session_present, "a new session")
    sleeper.subscribe("queue/#", 1)
    sleeper.cut()
    publisher = Client("paho-publisher")
    for number in range(50):
        publisher.publish(f"queue/{number % 3}", str(number), 1)
    publisher.leave()
    sleeper = Client("paho-sleeper", persistent=True)
    fact(sleeper.session_present, "the session was kept")
    numbers = [int(sleeper.take().payload) for _ in range(50)]
    fact(numbers == list(range(50)), "what was queued came in order, without a new subscription")
    sleeper.leave()


def record():
    terminal, payload = ARGUMENTS
    client = Client(terminal)
    client.publish(f"t/{terminal}/records", bytes.fromhex(payload), 1)
    fact(True, "the record is acknowledged")
    client.leave()


def receipt():
    (terminal,) = ARGUMENTS
    client = Client(terminal, persistent=True)
    client.subscribe(f"t/{terminal}/receipts", 1)
    message = client.take()
    seen = (message.topic, message.qos, message.retain)
    fact(seen == (f"t/{terminal}/receipts", 1, False), "the receipt came at QoS 1")
    print("payload " + message.payload.hex(), flush=True)
    client.leave()


TALKS = [live, retained, will, session, record, receipt]
{talk.__name__: talk for talk in TALKS}[TALK]()
