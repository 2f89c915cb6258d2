// The paths of a pair: the one in use, its candidates, what they cost and why it is this one.

import { byId, h, setOptions } from "./dom.js";
import { age, delay, plural, rate, share } from "./format.js";
import { ask, emit, on, relayName, state } from "./state.js";

/** Without news the answer is asked for anew so often: costs move. */
const REFRESH = 5_000;
/** Changes of routes that come together are one question. */
const DEBOUNCE = 80;

const TERMS = [["delay", "delay"], ["hop", "relays' work"], ["loss", "loss"], ["jitter", "jitter"], ["load", "load"], ["price", "price"], ["spread", "spread"]];
const REASONS = { best: "cheapest", disjoint: "shares no relay", diverse: "other providers or regions", parallel: "other lines", direct: "direct", further: "further" };
const MISSES = { deadline_us: "delay above what the class needs", delivery_ppm: "loss above what the class needs" };

let timer;
let asked = 0;
let lit = null;
let shown = null;
let listed = [];

export function start() {
  byId("pair").addEventListener("submit", (event) => event.preventDefault());
  byId("pair").addEventListener("change", refresh);
  byId("pair-swap").addEventListener("click", () => {
    const [from, to] = [byId("pair-from"), byId("pair-to")];
    [from.value, to.value] = [to.value, from.value];
    refresh();
  });
  on("overview", fillPickers);
  on("events", (events) => {
    if (events.some((event) => event.kind === "routes" || event.kind === "policy")) soon(DEBOUNCE);
    if (events.some((event) => event.kind === "policy")) policies();
  });
  policies();
}

async function policies() {
  const body = await ask("v1/policies").catch(() => ({ policies: [] }));
  setOptions(byId("pair-policy"), [["", "none"], ...body.policies.map(({ name }) => [name, name])]);
}

function fillPickers({ relays }) {
  const options = relays.map(({ id, name }) => [String(id), name]).sort((a, b) => a[1].localeCompare(b[1]));
  const [from, to] = [byId("pair-from"), byId("pair-to")];
  const first = !from.options.length;
  setOptions(from, options);
  setOptions(to, options);
  if (first && options.length > 1) {
    // The pair that is furthest apart by name says nothing; the first and the last of the list differ at least.
    to.selectedIndex = options.length - 1;
    refresh();
  }
}

function soon(delayMs) {
  clearTimeout(timer);
  timer = setTimeout(refresh, delayMs);
}

async function refresh() {
  soon(REFRESH);
  const [from, to] = [byId("pair-from").value, byId("pair-to").value];
  if (!from || !to) return;
  if (from === to) return show({ problem: "Choose two different relays." });
  const query = new URLSearchParams({ from, to, class: byId("pair-class").value });
  if (byId("pair-policy").value) query.set("tenant", byId("pair-policy").value);
  asked += 1;
  const mine = asked;
  const answer = await ask(`v1/explain?${query}`).catch((error) => ({ problem: error.message }));
  if (mine === asked) show(answer);
}

const relaysOf = (answer, path) => [answer.source, ...path.path.map((step) => step.relay)];
const ms = (value) => delay(value);

function show(answer) {
  const key = JSON.stringify([answer.source, answer.destination, answer.class, answer.policy]);
  if (shown !== key) lit = null;
  shown = key;
  const box = byId("paths");
  if (answer.problem) {
    box.replaceChildren(h("p", { class: "notice" }, answer.problem));
    return emit("paths", []);
  }
  const others = [...answer.others];
  const { direct } = answer;
  const same = (a, b) => JSON.stringify(a.path) === JSON.stringify(b.path);
  if (direct && !same(direct, answer.current) && !others.some((other) => same(other, direct))) others.push(direct);
  const all = [answer.current, ...others];
  listed = all;
  const most = Math.max(...all.map((path) => path.terms.total), 1);
  const gain = direct && !same(direct, answer.current) ? direct.delay_us - answer.current.delay_us : 0;
  const focused = document.activeElement?.closest?.("[data-candidate]")?.dataset.candidate;
  box.replaceChildren(
    h("p", { class: "answer" },
      h("strong", {}, `${answer.source_name} to ${answer.destination_name}`), ` takes ${delay(answer.current.delay_us)}`,
      gain > 0 ? `, ${delay(gain)} less than directly` : "", `. In use for ${age(answer.in_use_ms)}, moved ${plural(answer.moves, "time")}. `,
      answer.demand_bps === null ? "Demand unknown." : `Demand ${rate(answer.demand_bps)}.`),
    h("ol", { class: "candidates" }, all.map((path, at) => candidate(answer, path, at, most))),
    h("p", { class: "note" }, "Costs are in milliseconds' worth. Hover or focus a path to see it on the map."),
  );
  if (focused) box.querySelector(`[data-candidate="${focused}"]`)?.focus();
  tell(answer, all);
}

function tell(answer, all) {
  emit("paths", all.map((path, at) => {
    const relays = relaysOf(answer, path);
    return { relays, use: at === 0 || path.share_permille > 0, lit: lit === relays.join("-") };
  }));
}

function candidate(answer, path, at, most) {
  const relays = relaysOf(answer, path);
  const key = relays.join("-");
  const light = (on) => () => {
    lit = on ? key : null;
    tell(answer, listed);
  };
  const used = at === 0;
  const bars = TERMS.filter(([name]) => path.terms[name] > 0);
  const words = bars.map(([name, word]) => `${word} ${ms(path.terms[name])}`).join(", ");
  return h("li", { class: used ? "candidate-card used" : "candidate-card", tabindex: 0, "data-candidate": key, onmouseenter: light(true), onmouseleave: light(false), onfocus: light(true), onblur: light(false) },
    h("div", { class: "candidate-head" },
      h("span", { class: "tag" }, used ? "in use" : REASONS[path.reason] ?? path.reason),
      h("span", { class: "hops" }, relays.map(relayName).join(" → ")),
      h("span", { class: "numbers" }, `${delay(path.delay_us)}, cost ${ms(path.terms.total)}`)),
    h("div", { class: "cost", "aria-hidden": "true" }, cost(path, bars, most)),
    h("div", { class: "why" },
      h("span", {}, `Cost: ${words || "none"}. `),
      h("span", {}, `${why(path, used)}.`),
      path.share_permille !== null && path.share_permille < 1000 && path.share_permille > 0 ? ` Carries ${share(path.share_permille)} of the traffic.` : "",
      path.misses.map((miss) => h("span", { class: "miss" }, ` ${MISSES[miss.kind] ?? miss.kind}.`))));
}

function cost(path, bars, most) {
  return bars.map(([name]) => {
    const part = h("span", { class: `term ${name}` });
    part.style.width = `${(100 * path.terms[name]) / most}%`;
    return part;
  });
}

function why({ verdict: { kind, difference, remaining_ms: remaining } }, used) {
  const by = ms(difference);
  const words = {
    cheapest: "It is the cheapest",
    kept: `Another would save ${by}, too little to move for`,
    kept_while_held: `Another would save ${by}, but was left lately and has to hold first`,
    dearer: `Not used: costs ${by} more`,
    not_worth_moving: `Not used: saves ${by}, too little to move for`,
    held_after_leaving: `Not used: saves ${by}, but was left lately and has to hold for ${age(remaining)} more`,
    draining: "Not used: a relay or link of it is being drained",
    readmission: "Not used: a link of it failed lately and has to hold first",
  };
  return words[kind] ?? (used ? "In use" : "Not used");
}
