import "uplot/dist/uPlot.min.css";
import "./app.css";
import * as charts from "./charts.js";
import { byId, h, setText } from "./dom.js";
import * as drains from "./drains.js";
import * as events from "./events.js";
import * as felt from "./felt.js";
import { plural } from "./format.js";
import * as map from "./map.js";
import * as operator from "./operator.js";
import * as paths from "./paths.js";
import { emit, follow, on, relayState, state } from "./state.js";
import * as tables from "./tables.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const stored = {
  get: () => { try { return localStorage.getItem("theme") ?? "auto"; } catch { return "auto"; } },
  set: (theme) => { try { localStorage.setItem("theme", theme); } catch { /* Then it is forgotten. */ } },
};

function paint() {
  const theme = byId("theme").value;
  document.documentElement.dataset.shade = theme === "auto" ? (dark.matches ? "dark" : "light") : theme;
  emit("theme");
}

byId("theme").value = stored.get();
byId("theme").addEventListener("change", () => {
  stored.set(byId("theme").value);
  paint();
});
dark.addEventListener("change", paint);
paint();

function figures({ mesh, relays, link_counts: links, epoch_term: term, epoch_sequence: sequence, settling }) {
  setText(byId("mesh-name"), mesh);
  document.title = `Overway: ${mesh}`;
  const count = (is) => relays.filter((relay) => relayState(relay) === is).length;
  const trouble = (value) => (value > 0 ? "bad" : "good");
  const all = links.usable + links.unusable + links.unknown;
  const items = [
    [`${relays.length - count("down") - count("unknown")} of ${plural(relays.length, "relay")} up`, trouble(count("down"))],
    [`${links.usable.toLocaleString("en")} of ${plural(all, "link")} usable`, trouble(links.unusable)],
    [`epoch ${term}.${sequence}`, ""],
  ];
  if (links.suspect) items.push([`${links.suspect} suspect`, "warn"]);
  if (links.unknown) items.push([`${links.unknown} unknown`, "warn"]);
  if (settling) items.push(["settling: waiting for relays", "warn"]);
  const key = JSON.stringify(items);
  const list = byId("figures");
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...items.map(([text, is]) => h("li", { class: is }, text)));
}

function connection() {
  const box = byId("link-to-scheduler");
  box.className = state.connected ? "live" : "live lost";
  setText(box, state.connected ? "live" : "no word from the scheduler: what is shown is old");
}

on("overview", figures);
on("connected", connection);
setText(byId("link-to-scheduler"), "connecting");

operator.start();
map.start();
paths.start();
events.start();
tables.start();
charts.start();
drains.start();
felt.start();
follow();
