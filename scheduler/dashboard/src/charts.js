// Charts of the last hour, by uPlot: of the mesh, of the selected relay, or of a link.

import uPlot from "uplot";
import { byId, h, setOptions } from "./dom.js";
import { UNKNOWN, clock, delay, loss, plural, rate } from "./format.js";
import { ask, on, relayName, state } from "./state.js";

const REFRESH = 10_000;
const HEIGHT = 170;

/** What is drawn, and the least that the axis reaches up to, so that nothing looks like much. */
const CHARTS = {
  delay_us: { title: "Delay", format: delay, least: 1_000 },
  loss_ppm: { title: "Loss", format: loss, least: 1_000 },
  bps: { title: "Traffic", format: rate, least: 10_000, series: { received_bps: "received", sent_bps: "sent" } },
  links_unusable: { title: "Unusable links", least: 4, format: (count) => (count === null ? UNKNOWN : plural(count, "link")) },
};

let plots = [];
let link = null;
let relay = null;
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
  on("theme", () => last && draw(last));
  new ResizeObserver(() => plots.forEach(({ plot, box }) => plot.setSize({ width: box.clientWidth, height: HEIGHT }))).observe(byId("charts"));
  choose("mesh");
  setInterval(load, REFRESH);
}

function choose(what) {
  const options = [["mesh", "the whole mesh"]];
  if (relay !== null) options.push(["relay", relayName(relay)]);
  if (link) options.push(["link", `${relayName(link.from)} to ${relayName(link.to)}`], ["back", `${relayName(link.to)} to ${relayName(link.from)}`]);
  setOptions(byId("chart-of"), options);
  byId("chart-of").value = what;
  load();
}

const query = () => ({
  mesh: "",
  relay: `?relay=${relay}`,
  link: `?from=${link?.from}&to=${link?.to}&index=${link?.index ?? 0}`,
  back: `?from=${link?.to}&to=${link?.from}&index=${link?.index ?? 0}`,
})[byId("chart-of").value];

async function load() {
  const asked = query();
  const body = await ask(`v1/history${asked}`).catch(() => null);
  if (!body || asked !== query()) return;
  draw(body);
}

function draw(body) {
  last = body;
  const of = byId("chart-of").selectedOptions[0].text;
  const wanted = Object.entries(CHARTS)
    .map(([key, chart]) => {
      const names = chart.series ?? { [key]: chart.title };
      const present = Object.keys(names).filter((name) => body.series[name]);
      return { ...chart, present, labels: present.map((name) => names[name]) };
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
  const strokes = [colour("--accent"), colour("--second")];
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
      ...labels.map((label, at) => ({ label, stroke: strokes[at], width: 1.75, dash: at ? [5, 3] : undefined, points: { show: false }, spanGaps: false, value: (plot, value, series, at) => format(at === null ? plot.data[series].at(-1) ?? null : value) })),
    ],
  };
}
