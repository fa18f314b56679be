// What any program does with a broker, by MQTT.js.
//
// Usage: node mqttjs_talk.mjs NODE_MODULES {mqtt|mqtts|ws|wss}://HOST PORT {3.1.1|5} TALK
// [ARGUMENT...]
//
// With mqtts and wss the environment's TALK_CA is the file of the authority to trust.
//
// Prints a line for each fact it has seen; the first that is not so ends it with
// an error.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, where, port, version, talk, ...args] = process.argv.slice(2);
const [protocol, host] = where.split("://");
const ca = process.env.TALK_CA && readFileSync(process.env.TALK_CA);
const mqtt = createRequire(modules + "/")("mqtt");
const v5 = version === "5";
const PATIENCE_MS = 30_000;

function fact(holds, text) {
  if (!holds) throw new Error("not so: " + text);
  console.log(text);
}

function inTime(promise, what) {
  const late = new Promise((_, no) =>
    setTimeout(() => no(new Error("waited in vain for " + what)), PATIENCE_MS).unref());
  return Promise.race([promise, late]);
}

// MQTT.js's client with its messages in a queue.
class Client {
  constructor() {
    this.arrived = [];
    this.waiting = [];
  }

  static async connect(name, { persistent = false, will } = {}) {
    const self = new Client();
    self.name = name;
    const raw = mqtt.connect({
      host, port: Number(port), protocol, ca, path: "/mqtt", clientId: name,
      protocolVersion: v5 ? 5 : 4, clean: !persistent, reconnectPeriod: 0,
      resubscribe: false, will,
      ...(v5 && { properties: { sessionExpiryInterval: persistent ? 3600 : 0 } }),
    });
    self.raw = raw;
    raw.on("message", (topic, payload, packet) => {
      const message = { topic, payload, qos: packet.qos, retain: packet.retain };
      const next = self.waiting.shift();
      if (next) next(message); else self.arrived.push(message);
    });
    const connack = await inTime(new Promise((yes, no) => {
      raw.once("connect", yes);
      raw.once("error", no);
    }), "CONNACK");
    self.sessionPresent = connack.sessionPresent;
    fact(true, `${name} is connected`);
    return self;
  }

  async subscribe(topic, qos) {
    const granted = await inTime(this.raw.subscribeAsync(topic, { qos }), "SUBACK");
    fact(granted.length === 1 && granted[0].qos === qos, `subscribed to ${topic} at QoS ${qos}`);
  }

  publish(topic, payload, qos, retain = false) {
    return inTime(this.raw.publishAsync(topic, payload, { qos, retain }), "the acknowledgement");
  }

  take() {
    if (this.arrived.length) return this.arrived.shift();
    return inTime(new Promise((yes) => this.waiting.push(yes)), `a message for ${this.name}`);
  }

  leave() { return this.raw.endAsync(); }

  // As a power cut: the connection ends without DISCONNECT.
  async cut() {
    const closed = new Promise((yes) => this.raw.once("close", yes));
    this.raw.stream.destroy();
    await inTime(closed, "the cut");
    this.raw.end(true);
  }
}

const talks = {
  async live() {
    const client = await Client.connect("mqttjs-live");
    await client.subscribe("chat/+", 2);
    for (const qos of [0, 1, 2]) {
      await client.publish(`chat/${qos}`, `hello ${qos}`, qos);
      const { topic, payload, qos: at, retain } = await client.take();
      const seen = [topic, payload.toString(), at, retain].join();
      fact(seen === [`chat/${qos}`, `hello ${qos}`, qos, false].join(), `QoS ${qos} came as it was sent`);
    }
    await client.raw.unsubscribeAsync("chat/+");
    await client.leave();
  },

  async retained() {
    const publisher = await Client.connect("mqttjs-retaining");
    await publisher.publish("state/door", "open", 1, true);
    const reader = await Client.connect("mqttjs-reader");
    await reader.subscribe("state/#", 1);
    const first = await reader.take();
    fact(first.payload.toString() === "open" && first.retain, "a new subscriber got the retained message");
    await publisher.publish("state/door", "", 1, true);
    const cleared = await reader.take();
    fact(cleared.payload.length === 0 && !cleared.retain, "clearing it is seen");
    const late = await Client.connect("mqttjs-late");
    await late.subscribe("state/#", 1);
    await publisher.publish("state/window", "shut", 1);
    fact((await late.take()).topic === "state/window", "what was cleared comes no more");
    for (const client of [publisher, reader, late]) await client.leave();
  },

  async will() {
    const watcher = await Client.connect("mqttjs-watcher");
    await watcher.subscribe("gone/+", 1);
    const will = (name) => ({ will: { topic: `gone/${name}`, payload: Buffer.from("gone"), qos: 1 } });
    await (await Client.connect("mqttjs-orderly", will("orderly"))).leave();
    await (await Client.connect("mqttjs-mortal", will("mortal"))).cut();
    const { topic, payload } = await watcher.take();
    fact(topic === "gone/mortal" && payload.toString() === "gone", "the will of the one that was cut came");
    await watcher.leave();
  },

  async session() {
    let sleeper = await Client.connect("mqttjs-sleeper", { persistent: true });
    fact(!sleeper.sessionPresent, "a new session");
    await sleeper.subscribe("queue/#", 1);
    await sleeper.cut();
    const publisher = await Client.connect("mqttjs-publisher");
    for (let number = 0; number < 50; number++) {
      await publisher.publish(`queue/${number % 3}`, String(number), 1);
    }
    await publisher.leave();
    sleeper = await Client.connect("mqttjs-sleeper", { persistent: true });
    fact(sleeper.sessionPresent, "the session was kept");
    for (let number = 0; number < 50; number++) {
      const { payload } = await sleeper.take();
      if (payload.toString() !== String(number)) throw new Error(`${payload} instead of ${number}`);
    }
    fact(true, "what was queued came in order, without a new subscription");
    await sleeper.leave();
  },

  async record() {
    const [terminal, payload] = args;
    const client = await Client.connect(terminal);
    await client.publish(`t/${terminal}/records`, Buffer.from(payload, "hex"), 1);
    fact(true, "the record is acknowledged");
    await client.leave();
  },

  async receipt() {
    const [terminal] = args;
    const client = await Client.connect(terminal, { persistent: true });
    await client.subscribe(`t/${terminal}/receipts`, 1);
    const { topic, payload, qos, retain } = await client.take();
    fact(topic === `t/${terminal}/receipts` && qos === 1 && !retain, "the receipt came at QoS 1");
    console.log("payload " + payload.toString("hex"));
    await client.leave();
  },
};

talks[talk]().catch((error) => {
  console.error(String(error));
  process.exit(1);
});
