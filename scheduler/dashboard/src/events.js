// Events: marks on a time line of an hour, and a list in words. Events of one kind that come together are one entry.

import { byId, h, s, setOptions, setText } from "./dom.js";
import { clock, minute, plural } from "./format.js";
import { now, on, relayName, select, state } from "./state.js";

const HOUR = 3_600_000;
/** Pixels of a minute on the time line. */
const MINUTE_PX = 60;
const WIDTH = 60 * MINUTE_PX;
const LANE_PX = 18;
/** Events of a kind within this time are one entry of the list. */
const TOGETHER = 1_500;
/** Entries that are shown at once; a button shows more. */
const PAGE = 60;
/** Time between two announcements to screen readers. */
const ANNOUNCE = 3_000;

const LANES = [
  ["trouble", "failures"],
  ["better", "recoveries"],
  ["routes", "routes"],
  ["members", "membership"],
  ["operator", "operator"],
];
/** Kind: lane, symbol, words; for several of them another. */
const KINDS = {
  link_suspect: ["trouble", "?", "link suspect", "links suspect"],
  link_unusable: ["trouble", "✕", "link down", "links down"],
  relay_unreached: ["trouble", "✕", "relay down", "relays down"],
  relay_lost: ["members", "−", "left", "left"],
  stall: ["trouble", "!", "process stalled", "processes stalled"],
  overloaded: ["trouble", "!", "overloaded", "overloaded"],
  report_refused: ["trouble", "!", "report refused", "reports refused"],
  relay_refused: ["trouble", "!", "relay refused", "relays refused"],
  link_usable: ["better", "✓", "link up", "links up"],
  relay_reached: ["better", "✓", "relay up", "relays up"],
  overload_ended: ["better", "✓", "overload over", "overloads over"],
  routes: ["routes", "⇄", "route change", "route changes"],
  detour: ["routes", "↷", "detour", "detours"],
  epoch: ["routes", "·", "update", "updates"],
  relay_connected: ["members", "+", "connected", "connected"],
  node_joined: ["members", "+", "joined", "joined"],
  node_invited: ["members", "+", "invited", "invited"],
  node_removed: ["members", "−", "removed", "removed"],
  invitation_withdrawn: ["members", "−", "invitation withdrawn", "invitations withdrawn"],
  term_raised: ["members", "!", "term raised", "terms raised"],
  drain: ["operator", "◇", "drain", "drains"],
  tenant: ["operator", "◇", "tenant", "tenants"],
  policy: ["operator", "◇", "policy", "policies"],
};
const kindOf = (kind) => KINDS[kind] ?? ["members", "·", kind, kind];
const LOUD = new Set(["relay_unreached", "relay_reached", "relay_lost", "overloaded", "drain", "node_joined", "node_removed"]);

let limit = PAGE;
let following = true;
let dirty = false;
const unannounced = [];
let announcing = null;

export function start() {
  setOptions(byId("event-filter"), [["", "all"], ...LANES]);
  byId("lanes").append(...LANES.map(([, name]) => h("span", {}, name)));
  byId("event-filter").addEventListener("change", () => {
    limit = PAGE;
    render();
  });
  const scroll = byId("timeline");
  scroll.addEventListener("scroll", () => {
    following = scroll.scrollLeft + scroll.clientWidth >= WIDTH - 8;
  });
  byId("event-now").addEventListener("click", () => {
    scroll.scrollLeft = WIDTH;
    byId("event-list").scrollTop = 0;
  });
  byId("event-list").addEventListener("keydown", step);
  on("events", (events) => {
    announce(events);
    if (dirty) return;
    dirty = true;
    requestAnimationFrame(render);
  });
  setInterval(drawLine, 5_000);
  render();
}

function render() {
  dirty = false;
  drawLine();
  drawList();
}

const isShown = (event) => {
  const filter = byId("event-filter").value;
  return event.kind !== "epoch" && (!filter || kindOf(event.kind)[0] === filter);
};

/** Marks by lane and place: what falls on the same four pixels is one mark, larger for more. */
function drawLine() {
  const scroll = byId("timeline");
  const end = now();
  const marks = new Map();
  for (const event of state.events) {
    if (!isShown(event)) continue;
    const back = (end - event.at_unix_ms) / 60_000;
    if (back > 60) continue;
    const [lane] = kindOf(event.kind);
    const x = Math.round((WIDTH - Math.max(0, back) * MINUTE_PX) / 4) * 4;
    const key = `${lane} ${x}`;
    const mark = marks.get(key) ?? { lane, x, events: [] };
    mark.events.push(event);
    marks.set(key, mark);
  }
  const height = LANES.length * LANE_PX + 18;
  const svg = s("svg", { width: WIDTH, height, viewBox: `0 0 ${WIDTH} ${height}`, "aria-hidden": "true" });
  for (let back = 0; back < 60; back += 1) {
    const at = end - back * 60_000;
    const into = at % 60_000;
    const x = WIDTH - ((end - (at - into)) / 60_000) * MINUTE_PX;
    svg.append(s("line", { class: "tick", x1: x, x2: x, y1: 0, y2: LANES.length * LANE_PX }), s("text", { class: "tick-text", x: x + 3, y: height - 5 }, minute(at - into)));
  }
  LANES.forEach((_, at) => svg.append(s("line", { class: "lane", x1: 0, x2: WIDTH, y1: (at + 0.5) * LANE_PX, y2: (at + 0.5) * LANE_PX })));
  for (const { lane, x, events } of marks.values()) {
    const y = (LANES.findIndex(([name]) => name === lane) + 0.5) * LANE_PX;
    const r = Math.min(8, 3 + Math.log2(events.length + 1));
    const title = `${clock(events[0].at_unix_ms)} ${groups(events).map(({ title }) => title).join("; ")}`;
    const shape = lane === "trouble"
      ? s("path", { d: `M0,${-r}L${r},${r * 0.8}L${-r},${r * 0.8}Z` })
      : lane === "better" || lane === "members" ? s("circle", { r: r - 0.5 }) : s("path", { d: `M0,${-r}L${r},0L0,${r}L${-r},0Z` });
    svg.append(s("g", { class: `mark ${lane}`, transform: `translate(${Math.min(x, WIDTH - 8)},${y})`, onclick: () => reveal(events.at(-1)) }, s("title", {}, title), shape));
  }
  scroll.replaceChildren(svg);
  if (following) scroll.scrollLeft = WIDTH;
}

/** The list is one stop of the Tab key; arrows go from entry to entry, as far as there is something to select. */
function step(event) {
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!by) return;
  const buttons = [...byId("event-list").querySelectorAll("li button")];
  const next = buttons[Math.max(0, buttons.indexOf(document.activeElement) + by)];
  if (!next) return;
  event.preventDefault();
  next.focus();
}

/** Shows an event of the time line in the list. */
function reveal(event) {
  limit = state.events.length;
  drawList();
  const entries = [...byId("event-list").querySelectorAll("li")];
  const entry = entries.find((entry) => Number(entry.dataset.first) <= event.sequence && event.sequence <= Number(entry.dataset.last));
  entry?.scrollIntoView({ block: "nearest" });
  entry?.animate([{ backgroundColor: "var(--accent-soft)" }, { backgroundColor: "transparent" }], 1_500);
}

/** Events, oldest first, as entries; what is of one kind and close in time is together. */
function groups(events) {
  const open = new Map();
  const all = [];
  for (const event of events) {
    let group = open.get(event.kind);
    if (!group || event.at_unix_ms - group.at > TOGETHER) {
      group = { kind: event.kind, first: event, events: [] };
      open.set(event.kind, group);
      all.push(group);
    }
    group.at = event.at_unix_ms;
    group.events.push(event);
  }
  return all.map((group) => ({ ...group, ...words(group) }));
}

function words({ kind, events }) {
  const [, , one, many] = kindOf(kind);
  if (kind === "routes") {
    const sum = events.reduce((sum, event) => sum + (Number(/: (\d+) routes/.exec(event.detail)?.[1]) || 0), 0);
    return { title: `${plural(sum, "route")} changed, in ${plural(events.length, "update")}`, about: null };
  }
  if (events.length === 1) return { title: `${one}: ${told(events[0])}`, about: aboutOne(events[0]) };
  const isLink = events.every((event) => event.to !== null);
  const common = isLink ? commonRelay(events) : null;
  if (common !== null) return { title: `${events.length} ${many}, all of ${relayName(common)}`, about: common };
  const details = [...new Set(events.map(told))];
  const more = details.length > 3 ? `, and ${details.length - 3} more` : "";
  return { title: `${events.length} ${many}: ${details.slice(0, 3).join(", ")}${more}`, about: aboutOne(events[0]) };
}

/** The first line between two relays is the only one of most. */
const told = ({ detail }) => detail.replace(" > ", " to ").replace(/ link 0$/, "");
const aboutOne = (event) => event.relay;

function commonRelay([first, ...rest]) {
  return [first.relay, first.to].find((id) => rest.every((event) => event.relay === id || event.to === id)) ?? null;
}

function drawList() {
  const list = byId("event-list");
  const all = groups(state.events.filter(isShown)).reverse();
  const shown = all.slice(0, limit);
  if (!all.length) {
    list.replaceChildren(h("p", { class: "note" }, "Nothing happened in the last hour, as far as the scheduler has run that long."));
    return;
  }
  const top = list.scrollTop;
  const focused = list.contains(document.activeElement) ? document.activeElement.closest("li")?.dataset.first : null;
  list.replaceChildren(
    h("ol", {}, shown.map((group) => {
      const [lane, symbol] = kindOf(group.kind);
      const id = group.about;
      return h("li", { class: lane, "data-first": group.first.sequence, "data-last": group.events.at(-1).sequence, "data-kind": group.kind },
        h("time", {}, clock(group.first.at_unix_ms)),
        h("span", { class: "symbol", "aria-hidden": "true" }, symbol),
        h("span", { class: "what" }, group.title),
        id !== null && state.byId.has(id) ? h("button", { type: "button", class: "small", tabindex: -1, "aria-label": `Select ${relayName(id)}`, onclick: () => select({ relay: id }) }, "select") : null);
    })),
    all.length > limit ? h("button", { type: "button", onclick: () => { limit += PAGE * 3; drawList(); } }, `Show older (${all.length - limit} more)`) : "",
  );
  list.scrollTop = top;
  if (focused) list.querySelector(`li[data-first="${focused}"] button`)?.focus();
}

/** Says what matters to screen readers, not each link. The first batch is history, and not said. */
let greeted = false;
function announce(events) {
  if (!greeted) {
    greeted = true;
    return;
  }
  unannounced.push(...events.filter((event) => LOUD.has(event.kind)));
  if (announcing || !unannounced.length) return;
  announcing = setTimeout(() => {
    announcing = null;
    setText(byId("announce"), groups(unannounced.splice(0)).map(({ title }) => title).join(". "));
  }, ANNOUNCE);
}
