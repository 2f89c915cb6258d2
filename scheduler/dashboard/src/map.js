// The map: land, links by pair of relays, relays, and the paths of the pair that is looked at.
// d3-geo projects, d3-zoom moves; links are great circles.

import { geoGraticule10, geoNaturalEarth1, geoPath } from "d3-geo";
import { select as d3Select } from "d3-selection";
import { zoom as d3Zoom, zoomIdentity } from "d3-zoom";
import { feature } from "topojson-client";
import atlas from "world-atlas/land-110m.json";
import { byId, h, s, setText } from "./dom.js";
import { confirm, drainOf, told } from "./drains.js";
import { delay, loss, plural, rate } from "./format.js";
import { mayChange } from "./operator.js";
import { RELAY_STATES, ask, on, relayName, relayState, select, state } from "./state.js";

const LAND = feature(atlas, atlas.objects.land);
/** What is shown of the world: the ice has no relays. */
const FRAME = { type: "MultiPoint", coordinates: [[-168, 0], [178, 0], [0, 76], [0, -56], [-120, 72], [150, -48]] };
/** Relays whose names are written. */
const LABELS_MAX = 300;
const ZOOM_MAX = 24;
/** A link that loses more than this is shown as lossy. */
export const LOSSY_PPM = 20_000;

const LINK_STATES = {
  up: "link up",
  lossy: "loses 2 % or more",
  suspect: "suspect: silent just now",
  down: "down",
  unknown: "unknown",
};
const WORST = ["up", "lossy", "unknown", "suspect", "down"];

export const linkState = (link) => (link.state === "up" && link.loss_ppm >= LOSSY_PPM ? "lossy" : link.state);

const svg = s("svg", { role: "img", "aria-labelledby": "map-title map-summary" });
const summary = s("title", { id: "map-summary" });
const world = s("g");
const graticule = s("path", { class: "graticule" });
const land = s("path", { class: "land" });
const layers = { links: s("g", { class: "links" }), paths: s("g", { class: "paths" }), relays: s("g", { class: "relays" }) };
world.append(graticule, land, layers.links, layers.paths, layers.relays);
svg.append(summary, world);

const projection = geoNaturalEarth1();
const path = geoPath(projection);
let size = [0, 0];
let transform = zoomIdentity;
let paths = [];
/** Links of the selected relay, where the overview does not have them all. */
let more = [];
const nodes = new Map();
const lines = new Map();

const behaviour = d3Zoom()
  .scaleExtent([1, ZOOM_MAX])
  // A wheel scrolls the page and one finger too; with Ctrl, or two, they are the map's.
  .filter((event) => (event.type === "wheel" ? event.ctrlKey : event.touches ? event.touches.length > 1 : !event.button))
  .on("zoom", (event) => {
    transform = event.transform;
    world.setAttribute("transform", transform);
    scaleNodes();
  });

export function start() {
  byId("map").append(svg);
  d3Select(svg).call(behaviour).on("dblclick.zoom", null);
  const zoomBy = (factor) => d3Select(svg).call(behaviour.scaleBy, factor);
  byId("zoom-in").addEventListener("click", () => zoomBy(1.6));
  byId("zoom-out").addEventListener("click", () => zoomBy(1 / 1.6));
  byId("zoom-home").addEventListener("click", () => d3Select(svg).call(behaviour.transform, zoomIdentity));
  new ResizeObserver(resize).observe(byId("map"));
  resize();
  legend();
  on("overview", draw);
  on("selected", selectionChanged);
  for (const news of ["drains", "operator"]) on(news, () => state.overview && describe(pairs()));
  on("paths", (shown) => {
    paths = shown;
    drawPaths();
  });
}

function resize() {
  const width = Math.round(byId("map").clientWidth);
  const height = Math.round(Math.max(190, Math.min(width * 0.5, 620)));
  if (width === size[0] && height === size[1]) return;
  size = [width, height];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  behaviour.extent([[0, 0], size]).translateExtent([[0, 0], size]);
  projection.fitExtent([[8, 12], [width - 8, height - 12]], FRAME);
  path.pointRadius(0);
  graticule.setAttribute("d", path(geoGraticule10()));
  land.setAttribute("d", path(LAND));
  for (const line of lines.values()) line.drawn = null;
  if (state.overview) draw();
}

const place = (relay) => relay?.location && [relay.location.longitude_e6 / 1e6, relay.location.latitude_e6 / 1e6];

/** The links of pairs, both directions together: the worst of both is what it looks like. */
function pairs() {
  const found = new Map();
  const seen = new Set();
  for (const link of [...state.overview.links, ...more]) {
    const id = `${link.from}-${link.to}-${link.index ?? 0}`;
    if (seen.has(id)) continue;
    seen.add(id);
    const [a, b] = link.from < link.to ? [link.from, link.to] : [link.to, link.from];
    const key = `${a}-${b}`;
    if (!found.has(key)) found.set(key, { key, a, b, links: [], bps: 0, worst: "up" });
    const pair = found.get(key);
    pair.links.push(link);
    pair.bps += link.received_bps;
    const its = linkState(link);
    if (WORST.indexOf(its) > WORST.indexOf(pair.worst)) pair.worst = its;
  }
  return found;
}

/** Many lines, or a small map, make thinner ones. */
const room = (count) => Math.max(0.2, Math.min(1, Math.sqrt(150 / count)) * (size[0] < 500 ? 0.6 : 1));
const width = (bps, scale) => (bps < 1000 ? 0.8 : 0.8 + scale * Math.min(6.2, 1.05 * Math.log10(bps / 1000)));

function draw() {
  const relays = state.overview.relays;
  const found = pairs();
  drawLinks(found);
  drawRelays(relays);
  drawPaths();
  const down = relays.filter((relay) => relayState(relay) === "down").map((relay) => relay.name);
  setText(summary, `${plural(relays.length, "relay")}, ${plural(state.overview.links.length, "link")}. ${down.length ? `Down: ${down.slice(0, 20).join(", ")}.` : "No relay is down."} The tables below have the same in words.`);
  notes(relays);
  describe(found);
}

function drawLinks(found) {
  const scale = room(found.size);
  layers.links.setAttribute("class", `links${found.size > 400 ? " crowded" : ""}${state.selected.relay !== undefined || state.selected.pair ? " selecting" : ""}`);
  for (const [key, line] of lines) {
    if (!found.has(key)) {
      line.element.remove();
      lines.delete(key);
    }
  }
  for (const [key, pair] of found) {
    const ends = [place(state.byId.get(pair.a)), place(state.byId.get(pair.b))];
    let line = lines.get(key);
    if (!ends[0] || !ends[1]) {
      line?.element.remove();
      lines.delete(key);
      continue;
    }
    if (!line) {
      const title = s("title");
      const element = s("path", { "data-pair": key, onclick: () => select({ pair: [pair.a, pair.b] }) }, title);
      line = { element, title };
      lines.set(key, line);
      layers.links.append(element);
    }
    const where = ends.join(";");
    if (line.drawn !== where) {
      // Of so many lines none needs to be round.
      projection.precision(found.size > 400 ? 3 : 0.7);
      line.element.setAttribute("d", path({ type: "LineString", coordinates: ends }) ?? "");
      line.drawn = where;
    }
    const chosen = isChosen(pair);
    set(line, "class", `link is-${pair.worst}${pair.bps >= 1000 ? " busy" : ""}${chosen ? " chosen" : ""}`);
    set(line, "stroke-width", Math.max(width(pair.bps, scale), pair.worst === "down" ? 1.4 : 0).toFixed(1));
    set(line, "data-links", pair.links.length);
    setText(line.title, pairText(pair));
  }
}

/** Sets an attribute where it changed: to a browser each is work. */
function set(drawn, name, value) {
  drawn.has ??= {};
  if (drawn.has[name] === value) return;
  drawn.has[name] = value;
  drawn.element.setAttribute(name, value);
}

const isChosen = ({ a, b }) => state.selected.relay === a || state.selected.relay === b || (state.selected.pair?.includes(a) && state.selected.pair?.includes(b));

function pairText({ links }) {
  return links.map((link) => `${relayName(link.from)} to ${relayName(link.to)}${link.index ? ` (line ${link.index})` : ""}: ${LINK_STATES[linkState(link)]}, ${delay(link.delay_us)}, loss ${loss(link.loss_ppm)}, ${rate(link.received_bps)}`).join("\n");
}

/** Shapes differ, so that colour is not all that tells states apart. */
const SHAPES = {
  up: "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z",
  suspect: "M0,-6L6,5L-6,5Z",
  draining: "M0,-6L6,0L0,6L-6,0Z",
  down: "M-5,-7L0,-2L5,-7L7,-5L2,0L7,5L5,7L0,2L-5,7L-7,5L-2,0L-7,-5Z",
  unknown: "M4,0A4,4,0,1,1,-4,0A4,4,0,1,1,4,0Z",
};

function drawRelays(relays) {
  const there = new Set();
  for (const relay of relays) {
    const at = place(relay);
    if (!at) continue;
    there.add(relay.id);
    let node = nodes.get(relay.id);
    if (!node) {
      const [shape, label, title] = [s("path"), s("text"), s("title")];
      const element = s("g", { "data-relay": relay.id, onclick: () => select({ relay: relay.id }) }, title, shape, label);
      node = { element, shape, label, title };
      nodes.set(relay.id, node);
      layers.relays.append(element);
    }
    const is = relayState(relay);
    node.at = projection(at);
    set(node, "class", `relay is-${is}${isPicked(relay.id) ? " chosen" : ""}`);
    if (node.is !== is) {
      node.shape.setAttribute("d", SHAPES[is]);
      // What is unwell lies above its neighbours.
      if (is === "up") layers.relays.prepend(node.element);
      else layers.relays.append(node.element);
    }
    node.is = is;
    setText(node.title, `${relay.name}: ${RELAY_STATES[is]}; ${relay.links_usable} of ${plural(relay.links, "link")} usable`);
    node.name = relay.name;
  }
  for (const [id, node] of nodes) {
    if (there.has(id)) continue;
    node.element.remove();
    nodes.delete(id);
  }
  scaleNodes();
}

const isPicked = (id) => state.selected.relay === id || state.selected.pair?.includes(id) || paths.some((shown) => shown.use && shown.relays.includes(id));

/** Nodes and names keep their size on the screen; names that would lie over others are left out. */
function scaleNodes() {
  const k = transform.k;
  const many = nodes.size > 150 && k < 4;
  const taken = [];
  const radius = many ? 0.55 : 1;
  const visible = [...nodes.values()].sort((a, b) => rank(b) - rank(a));
  for (const node of visible) {
    const [x, y] = node.at;
    set(node, "transform", `translate(${x},${y}) scale(${radius / k})`);
    const [sx, sy] = transform.apply(node.at);
    taken.push([sx - 6, sy - 6, sx + 6, sy + 6]);
  }
  let written = 0;
  for (const node of visible) {
    const [sx, sy] = transform.apply(node.at);
    const inside = sx > 0 && sy > 0 && sx < size[0] && sy < size[1];
    const spot = inside && written < LABELS_MAX && !many ? freeSpot(node, sx, sy, taken) : null;
    node.label.textContent = spot ? node.name : "";
    if (!spot) continue;
    written += 1;
    node.label.setAttribute("x", spot.x);
    node.label.setAttribute("y", spot.y);
    node.label.setAttribute("text-anchor", spot.anchor);
    taken.push(spot.box);
  }
}

const rank = (node) => (node.is === "up" ? 0 : 2) + (node.element.classList.contains("chosen") ? 1 : 0);

function freeSpot(node, sx, sy, taken) {
  const w = node.name.length * 6.6 + 4;
  const spots = [
    { x: 9, y: 4, anchor: "start", box: [sx + 8, sy - 7, sx + 8 + w, sy + 7] },
    { x: -9, y: 4, anchor: "end", box: [sx - 8 - w, sy - 7, sx - 8, sy + 7] },
    { x: 0, y: 18, anchor: "middle", box: [sx - w / 2, sy + 8, sx + w / 2, sy + 21] },
    { x: 0, y: -10, anchor: "middle", box: [sx - w / 2, sy - 21, sx + w / 2, sy - 8] },
  ];
  const fits = ({ box: [left, top, right, bottom] }) =>
    left > 0 && right < size[0] && top > 0 && bottom < size[1] &&
    !taken.some(([l, t, r, b]) => left < r && right > l && top < b && bottom > t);
  return spots.find(fits);
}

/** The candidates thin and dashed, the path in use thick and above them. */
function drawPaths() {
  projection.precision(0.7);
  layers.paths.replaceChildren();
  for (const shown of [...paths].sort((a, b) => a.use - b.use)) {
    const coordinates = shown.relays.map((id) => place(state.byId.get(id)));
    if (coordinates.some((at) => !at)) continue;
    const d = path({ type: "LineString", coordinates }) ?? "";
    const role = `path ${shown.use ? "in-use" : "candidate"}${shown.lit ? " lit" : ""}`;
    layers.paths.append(s("path", { class: `${role} casing`, d }));
    layers.paths.append(s("path", { class: role, d, "data-path": shown.relays.join("-") }));
  }
  for (const [id, node] of nodes) set(node, "class", `relay is-${node.is}${isPicked(id) ? " chosen" : ""}`);
}

function notes(relays) {
  const counts = state.overview.link_counts;
  const all = counts.usable + counts.unusable + counts.unknown;
  const listed = state.overview.links.length;
  const shown = listed < all
    ? `Of ${plural(all, "link")} ${listed.toLocaleString("en")} are on the map: those that carry most, those that are unwell, and all of a relay that you select.`
    : "";
  setText(byId("map-note"), `${shown} Ctrl and the wheel, or two fingers, zoom.`.trim());
  const unplaced = relays.filter((relay) => !relay.location);
  const box = byId("unplaced");
  box.hidden = !unplaced.length;
  const key = unplaced.map((relay) => `${relay.id}${relayState(relay)}`).join();
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  const shownUnplaced = unplaced.slice(0, 40);
  box.replaceChildren(
    h("h3", {}, "Without a place on the map"),
    h("ul", { class: "chips" }, shownUnplaced.map((relay) => h("li", {}, h("button", { type: "button", class: `chip is-${relayState(relay)}`, onclick: () => select({ relay: relay.id }) }, `${relay.name}: ${relayState(relay)}`)))),
    unplaced.length > shownUnplaced.length ? h("p", { class: "note" }, `and ${unplaced.length - shownUnplaced.length} more, in the table of relays.`) : null,
  );
}

function legend() {
  const relay = (is, text) => h("li", {}, s("svg", { viewBox: "-8 -8 16 16", width: 14, height: 14, "aria-hidden": "true" }, s("g", { class: `relay is-${is}` }, s("path", { d: SHAPES[is] }))), text);
  const line = (classes, text, stroke = 2) => h("li", {}, s("svg", { viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true" }, s("path", { class: classes, d: "M0,4H28", "stroke-width": stroke })), text);
  byId("legend").append(
    relay("up", "relay"),
    relay("suspect", "no word"),
    relay("draining", "draining"),
    relay("down", "down"),
    relay("unknown", "unknown"),
    line("link is-up busy", "link; wider: more traffic", 4),
    line("link is-lossy busy", "lossy"),
    line("link is-suspect busy", "suspect"),
    line("link is-down busy", "down"),
    line("path in-use", "path in use", 4),
    line("path candidate", "candidate"),
  );
}

async function selectionChanged(selected) {
  more = [];
  const counts = state.overview?.link_counts;
  const partial = counts && counts.usable + counts.unusable + counts.unknown > state.overview.links.length;
  if (partial && selected.relay !== undefined) {
    const body = await ask(`v1/links?relay=${selected.relay}`).catch(() => ({ links: [] }));
    if (state.selected !== selected) return;
    more = body.links.map(glance);
  }
  if (state.overview) draw();
}

/** A link of `GET /v1/links` as overviews have it. */
export function glance(link) {
  const slow = link.slow?.samples ? link.slow : null;
  const is = !link.known ? "unknown" : link.usable ? (link.inbound === "suspect" ? "suspect" : "up") : link.inbound === "unknown" ? "unknown" : "down";
  return {
    from: link.from,
    to: link.to,
    index: link.index,
    state: is,
    candidate: link.role === "candidate",
    delay_us: link.delay_us,
    loss_ppm: slow ? Math.round((slow.lost / slow.samples) * 1e6) : null,
    jitter_us: slow?.jitter_us ?? null,
    received_bps: link.received_bps,
    load_permille: link.load_permille,
  };
}

/** What is selected, in words, under the map. */
function describe(found) {
  const box = byId("selected");
  const { relay: id, pair } = state.selected;
  const relay = id === undefined ? null : state.byId.get(id);
  const chosen = pair ? found.get(`${Math.min(...pair)}-${Math.max(...pair)}`) : null;
  box.hidden = !relay && !chosen;
  if (box.hidden) return;
  const title = relay ? relay.name : `${relayName(pair[0])} and ${relayName(pair[1])}`;
  const lines = relay
    ? [
        RELAY_STATES[relayState(relay)],
        [relay.provider, relay.region].filter(Boolean).join(", ") || "provider and region unknown",
        `${relay.links_usable} of ${plural(relay.links, "link")} usable`,
        `sends ${rate(relay.sent_bps)}, receives ${rate(relay.received_bps)}`,
      ]
    : pairText(chosen).split("\n");
  const drain = drainOf(state.selected);
  if (drain) lines.push(told(drain));
  const key = JSON.stringify([title, id, mayChange(), Boolean(drain)]);
  if (box.dataset.key !== key) {
    box.dataset.key = key;
    const buttons = relay
      ? [
          h("button", { type: "button", "data-act": "from" }, "Paths from here"),
          h("button", { type: "button", "data-act": "to" }, "Paths to here"),
        ]
      : [h("button", { type: "button", "data-act": "pair" }, "Paths between them")];
    if (mayChange()) buttons.push(h("button", { type: "button", "data-act": "drain" }, drain ? "Take the drain back …" : relay ? "Drain this relay …" : "Drain these links …"));
    buttons.push(h("button", { type: "button", "data-act": "none" }, "Deselect"));
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    box.replaceChildren(h("h3", {}, title), h("ul"), h("div", { class: "buttons" }, buttons));
    box.onclick = ({ target }) => act(target.dataset.act, relay, pair);
    if (focused) box.querySelector(`[data-act="${focused}"]`)?.focus();
  }
  const list = box.querySelector("ul");
  const text = lines.join("\n");
  if (list.dataset.text !== text) {
    list.dataset.text = text;
    list.replaceChildren(...lines.map((line) => h("li", {}, line)));
  }
}

function act(what, relay, pair) {
  const picked = { from: () => ["pair-from", relay.id], to: () => ["pair-to", relay.id] }[what]?.();
  if (picked) setPair(...picked);
  if (what === "pair") {
    byId("pair-from").value = pair[0];
    setPair("pair-to", pair[1]);
  }
  if (what === "drain") confirm(state.selected);
  if (what === "none") select({});
}

function setPair(id, value) {
  byId(id).value = value;
  byId(id).dispatchEvent(new Event("change", { bubbles: true }));
}
