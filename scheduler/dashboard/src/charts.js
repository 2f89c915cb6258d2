// Charts of the last hour, by uPlot: of the mesh, of the selected relay, of a link, or of what users feel of a service.

import uPlot from "uplot";
import { byId, h, setOptions, setText } from "./dom.js";
import { felt, feltName, historyQuery, keyOf } from "./felt.js";
import { UNKNOWN, clock, delay, loss, plural, rate } from "./format.js";
import { ask, on, relayName, state } from "./state.js";

const REFRESH = 10_000;
const HEIGHT = 170;

/** What is drawn, and the least that the axis reaches up to, so that nothing looks like much. */
const CHARTS = {
  delay: { title: "Delay", format: delay, least: 1_000, series: { delay_us: "links", felt_delay_p50_us: "users, middle", felt_delay_p99_us: "users, 99 %" } },
  loss: { title: "Loss", format: loss, least: 1_000, series: { loss_ppm: "links", felt_loss_ppm: "users, all together" } },
  gap: { title: "Gap", format: delay, least: 10_000, series: { felt_gap_p99_us: "users, 99 %" } },
  stall: { title: "Stall", format: delay, least: 100_000, series: { felt_stall_p99_us: "users, 99 %" } },
  bps: { title: "Traffic", format: rate, least: 10_000, series: { received_bps: "received", sent_bps: "sent" } },
  links_unusable: { title: "Unusable links", least: 4, format: (count) => (count === null ? UNKNOWN : plural(count, "link")) },
};

const NOTES = {
  mesh: "Links: the middle of their delays, the mean of their losses. Users: of all services, over the last half minute to minute.",
  relay: "Gaps are felt at the ends of flows, not at relays: choose the mesh or a service.",
  link: "Gaps are felt at the ends of flows, not on links: choose the mesh or a service.",
  felt: "As the ends of flows report it, over the last half minute to minute. Where a line is missing nobody reported, and it is not known.",
};
/** Services in the list; the table has all. */
const SERVICES_MAX = 40;

let plots = [];
let link = null;
let relay = null;
/** What was picked in the table of what users feel. */
let service = null;
let last = null;

export function start() {
  byId("chart-of").addEventListener("change", load);
  on("selected", ({ relay: id, pair }) => {
    relay = id ?? relay;
    if (pair) [link] = state.overview.links.filter((one) => one.from === pair[0] && one.to === pair[1]).concat({ from: pair[0], to: pair[1], index: 0 });
    choose(pair ? "link" : id === undefined ? "mesh" : "relay");
  });
  on("chart-link", (chosen) => {
    link = chosen;
    choose("link");
  });
  on("chart-felt", (row) => {
    service = row;
    choose(keyOf(row));
  });
  on("felt", () => list());
  on("theme", () => last && draw(last));
  new ResizeObserver(() => plots.forEach(({ plot, box }) => plot.setSize({ width: box.clientWidth, height: HEIGHT }))).observe(byId("charts"));
  choose("mesh");
  setInterval(load, REFRESH);
}

/** What there are charts of. */
function list() {
  const options = [["mesh", "the whole mesh"]];
  if (relay !== null) options.push(["relay", relayName(relay)]);
  if (link) options.push(["link", `${relayName(link.from)} to ${relayName(link.to)}`], ["back", `${relayName(link.to)} to ${relayName(link.from)}`]);
  const services = (felt.services ?? []).slice(0, SERVICES_MAX);
  if (service && !services.some((row) => keyOf(row) === keyOf(service))) services.push(service);
  options.push(...services.map((row) => [keyOf(row), `users of ${feltName(row)}`]));
  setOptions(byId("chart-of"), options);
}

function choose(what) {
  list();
  byId("chart-of").value = what;
  load();
}

function query() {
  const of = byId("chart-of").value;
  const known = {
    mesh: "",
    relay: `?relay=${relay}`,
    link: `?from=${link?.from}&to=${link?.to}&index=${link?.index ?? 0}`,
    back: `?from=${link?.to}&to=${link?.from}&index=${link?.index ?? 0}`,
  };
  return known[of] ?? historyQuery(of);
}

async function load() {
  const asked = query();
  const body = await ask(`v1/history${asked}`).catch(() => null);
  if (!body || asked !== query()) return;
  draw(body);
}

function draw(body) {
  last = body;
  const is = byId("chart-of").value;
  setText(byId("chart-note"), `A point each ten seconds. ${NOTES[is === "back" ? "link" : is] ?? NOTES.felt}`);
  const of = byId("chart-of").selectedOptions[0].text;
  const wanted = Object.entries(CHARTS)
    .map(([key, chart]) => {
      const names = chart.series ?? { [key]: chart.title };
      const present = Object.keys(names).filter((name) => body.series[name]);
      // One line alone needs no other name than its chart's, unless it is a quantile.
      const labels = present.map((name) => (present.length > 1 || name.startsWith("felt_") ? names[name] : chart.title));
      return { ...chart, present, labels };
    })
    .filter(({ present }) => present.length);
  const box = byId("charts");
  const shape = JSON.stringify([of, document.documentElement.dataset.shade, wanted.map(({ title, present }) => [title, present])]);
  const times = body.at_unix_ms.map((at) => at / 1000);
  const columns = ({ present }) => [times, ...present.map((name) => body.series[name])];
  if (box.dataset.shape === shape) {
    wanted.forEach((chart, at) => {
      plots[at].plot.setData(columns(chart));
      describe(plots[at].box, chart, body, of);
    });
    return;
  }
  plots.forEach(({ plot }) => plot.destroy());
  plots = [];
  box.dataset.shape = shape;
  if (!wanted.length) {
    box.replaceChildren(h("p", { class: "note" }, "Nothing is remembered of it yet."));
    return;
  }
  box.replaceChildren(...wanted.map((chart) => {
    const place = h("div", { class: "chart", role: "img" });
    return h("figure", {}, h("figcaption", {}, `${chart.title} of ${of}`), place);
  }));
  wanted.forEach((chart, at) => {
    const place = box.children[at].querySelector(".chart");
    plots.push({ box: place, plot: new uPlot(options(chart, place.clientWidth), columns(chart), place) });
    describe(place, chart, body, of);
  });
}

/** A chart in words, for those who do not see it. */
function describe(box, { title, present, labels, format }, body, of) {
  const parts = present.map((name, at) => {
    const values = body.series[name].filter((value) => value !== null);
    if (!values.length) return `${labels[at]}: unknown`;
    return `${labels[at]}: now ${format(body.series[name].at(-1))}, between ${format(Math.min(...values))} and ${format(Math.max(...values))}`;
  });
  box.setAttribute("aria-label", `${title} of ${of}. ${parts.join("; ")}.`);
}

function options({ labels, format, least }, width) {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const strokes = [colour("--accent"), colour("--second"), colour("--warn")];
  const dashes = [undefined, [5, 3], [2, 3]];
  return {
    width,
    height: HEIGHT,
    cursor: { points: { size: 6 } },
    scales: { y: { range: (_, min, max) => [Math.min(0, min ?? 0), Math.max((max ?? 0) * 1.1, least)] } },
    axes: [
      { ...axis, values: "{HH}:{mm}", space: 60 },
      { ...axis, size: 74, values: (_, ticks) => ticks.map((tick) => (tick === null ? "" : format(tick))) },
    ],
    series: [
      { label: "At", value: (_, at) => (at === null ? "last" : clock(at * 1000)) },
      ...labels.map((label, at) => ({ label, stroke: strokes[at], width: 1.75, dash: dashes[at], points: { show: false }, spanGaps: false, value: (plot, value, series, at) => format(at === null ? plot.data[series].at(-1) ?? null : value) })),
    ],
  };
}
