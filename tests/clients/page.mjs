// Runs the script of the gateway's page outside a browser, against the gateway
// itself, and prints what a person would read: a line `ID TEXT` for each place.
//
// Usage: node page.mjs BASE_URL TERMINAL SEQUENCE

import vm from "node:vm";

const [base, terminal, sequence] = process.argv.slice(2);

// As much of a document as the page uses; asking for a place that the page has
// not ends the script with an error, as in a browser.
class Element {
  constructor(id = "") {
    Object.assign(this, { id, textContent: "", className: "", hidden: false, value: "", children: [], listeners: {} });
  }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  setAttribute(name, value) { this[name] = value; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  get text() {
    return [this.textContent, ...this.children.map((child) => child.text)].filter(Boolean).join(" | ");
  }
}

const page = await (await fetch(base + "/")).text();
const places = new Map([...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => [id, new Element(id)]));
const document = {
  title: "", hidden: false,
  getElementById: (id) => places.get(id) ?? null,
  createElement: () => new Element(),
};
let polls = 0;
const context = vm.createContext({
  document, performance, Intl, console,
  fetch: (path, options) => fetch(base + path, options),
  // One poll is enough; the page would go on for ever.
  setTimeout: () => { polls += 1; },
});
vm.runInContext(page.match(/<script>([\s\S]*?)<\/script>/)[1], context);

places.get("terminal").value = terminal;
places.get("sequence").value = sequence;
await places.get("ask").listeners.submit({ preventDefault() {} });
while (polls === 0) await new Promise((yes) => setImmediate(yes));
for (const [id, place] of places) console.log(id, place.text);
