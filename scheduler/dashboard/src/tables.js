// Tables of relays, links, what users feel, drains, services, tenants and policies: sorted, searched, and paged, so that a thousand rows stay quick.

import { byId, h, setText } from "./dom.js";
import { listed as drains } from "./drains.js";
import { felt, keyOf, serviceName } from "./felt.js";
import { age, delay, loss, millis, part, rate, seconds, share, text } from "./format.js";
import { glance, linkState } from "./map.js";
import { RELAY_STATES, ask, emit, on, relayName, relayState, select, state } from "./state.js";

const PAGE = 25;
const TENANTS_REFRESH = 15_000;

const collator = new Intl.Collator("en", { numeric: true });
let policies = [];
let tenants = [];
/** Until the scheduler says that it knows of none; then it is not asked again. */
let hasTenants = true;
let linksOf = { relay: "", links: [] };

const column = (title, value, show = (row) => String(value(row)), options = {}) => ({ title, value, show, ...options });
const number = { number: true };

const TABLES = {
  relays: {
    title: "Relays",
    rows: () => state.overview?.relays ?? [],
    key: (relay) => String(relay.id),
    pick: (relay) => select({ relay: relay.id }),
    columns: [
      column("Name", (r) => r.name),
      column("State", (r) => relayState(r), (r) => RELAY_STATES[relayState(r)], { state: relayState }),
      column("Region", (r) => r.region, (r) => text(r.region)),
      column("Provider", (r) => r.provider, (r) => text(r.provider)),
      column("Links usable", (r) => r.links_usable, (r) => (r.registered ? `${r.links_usable} of ${r.links}` : "unknown"), number),
      column("Sends", (r) => r.sent_bps, (r) => rate(r.sent_bps), number),
      column("Receives", (r) => r.received_bps, (r) => rate(r.received_bps), number),
      column("Transit", (r) => r.transit, (r) => (r.transit ? "yes" : "no")),
      column("Last report", (r) => r.last_report_age_ms ?? Infinity, (r) => (r.last_report_age_ms === null ? "unknown" : r.last_report_age_ms < 1500 ? "now" : `${age(r.last_report_age_ms)} ago`), number),
      column("Stalls", (r) => r.self_stalls, undefined, number),
    ],
  },
  links: {
    title: "Links",
    rows: () => (linksOf.relay ? linksOf.links : state.overview?.links ?? []),
    key: (link) => `${link.from}-${link.to}-${link.index ?? 0}`,
    pick: (link) => {
      select({ pair: [link.from, link.to] });
      emit("chart-link", link);
    },
    columns: [
      column("From", (l) => relayName(l.from)),
      column("To", (l) => relayName(l.to)),
      column("Line", (l) => l.index ?? 0, undefined, number),
      column("State", (l) => linkState(l), undefined, { state: (l) => linkState(l) }),
      column("Delay", (l) => l.delay_us ?? Infinity, (l) => delay(l.delay_us), number),
      column("Jitter", (l) => l.jitter_us ?? Infinity, (l) => delay(l.jitter_us), number),
      column("Loss", (l) => l.loss_ppm ?? -1, (l) => loss(l.loss_ppm), number),
      column("Traffic", (l) => l.received_bps, (l) => rate(l.received_bps), number),
      column("Load", (l) => l.load_permille ?? -1, (l) => share(l.load_permille), number),
      column("On a path", (l) => Boolean(l.candidate), (l) => (l.candidate ? "yes" : "no")),
    ],
  },
  felt: {
    title: "What users feel",
    note: () => {
      if (felt.problem) return `Unknown: ${felt.problem}`;
      if (!felt.services) return "Unknown yet: the scheduler was not heard of it.";
      if (!felt.services.length) return "Unknown: no end of a flow has reported in the last five minutes.";
      return "Over the last five minutes, as the ends of flows measure it. ~ is half of a stream's round trip. On time is within 400 ms, a good gap within 60 ms of the sender's spacing. Streams lose nothing but stall, datagrams stall never.";
    },
    rows: () => felt.services ?? [],
    key: keyOf,
    pick: (row) => emit("chart-felt", row),
    columns: [
      column("Service", serviceName),
      column("Region", (q) => q.region ?? "", (q) => text(q.region)),
      column("Class", (q) => q.class),
      column("On time", (q) => (q.due ? q.on_time / q.due : -1), (q) => part(q.on_time, q.due), number),
      ...[["Delay, middle", "p50"], ["95 %", "p95"], ["99 %", "p99"]].map(([title, p]) => column(title, (q) => q.delay_ms[p] ?? -1, (q) => basis(q, millis(q.delay_ms[p])), number)),
      column("Lost", (q) => (q.loss.p50 === null ? -1 : q.lost / q.due), (q) => (q.loss.p50 === null ? "unknown" : q.lost ? part(q.lost, q.due) : "0 %"), number),
      column("Lost, 99 %", (q) => q.loss.p99 ?? -1, (q) => loss(q.loss.p99 === null ? null : q.loss.p99 * 1e6), number),
      column("Gap, 99 %", (q) => q.gap_ms.p99 ?? -1, (q) => millis(q.gap_ms.p99), number),
      column("Gaps good", (q) => (q.gaps ? q.gaps_good / q.gaps : -1), (q) => part(q.gaps_good, q.gaps), number),
      column("Stalls", (q) => (q.stall_s.p99 === null ? -1 : q.stalls), (q) => (q.stall_s.p99 === null ? "unknown" : String(q.stalls)), number),
      column("Stall, 99 %", (q) => q.stall_s.p99 ?? -1, (q) => seconds(q.stall_s.p99), number),
      column("Reports", (q) => q.reports, undefined, number),
    ],
  },
  drains: {
    title: "Drains",
    note: () => (drains().length ? "" : "Nothing is being drained."),
    rows: drains,
    key: (drain) => drain.relays.join(" and "),
    pick: ({ relays }) => {
      const [a, b] = relays.map((name) => state.overview?.relays.find((relay) => relay.name === name)?.id);
      select(b === undefined ? { relay: a } : { pair: [a, b] });
    },
    columns: [
      column("What", (d) => d.relays.join(" and ")),
      column("Kind", (d) => (d.kind === "link" ? "links" : d.kind)),
      column("State", (d) => (d.empty ? "empty" : d.stage === "over" ? "not used any more" : "paths are leaving"), undefined, { state: (d) => (d.empty ? "up" : "draining") }),
      column("Routes left", (d) => d.routes_left, undefined, number),
      column("Edges left", (d) => d.attachments_left, undefined, number),
      column("To the deadline", (d) => d.deadline_in_ms ?? Infinity, (d) => (d.stage === "over" ? "over" : d.deadline_in_ms === null ? "none" : age(d.deadline_in_ms)), number),
    ],
  },
  services: {
    title: "Services",
    rows: services,
    key: (service) => service.name,
    pick: (service) => select({ relay: service.relays[0].id }),
    columns: [
      column("Name", (v) => v.name),
      column("State", (v) => v.state, undefined, { state: (v) => (v.state === "up" ? "up" : "down") }),
      column("Offered at", (v) => v.relays.length, (v) => v.relays.map((relay) => relay.name).join(", ")),
      column("Reached", (v) => v.reached, (v) => `${v.reached} of ${v.relays.length}`, number),
    ],
  },
  tenants: {
    title: "Tenants",
    note: () => (hasTenants ? "" : "This scheduler keeps no tenants."),
    rows: () => tenants,
    key: (tenant) => String(tenant.number),
    pick: (tenant) => choosePolicy(tenant.policy ?? ""),
    columns: [
      column("Name", (t) => t.name),
      column("Number", (t) => t.number, undefined, number),
      column("Policy", (t) => t.policy ?? "", (t) => t.policy ?? "none: paths of everybody"),
      column("Keys", (t) => t.keys.length, (t) => t.keys.map(({ key }) => key.kid ?? "unnamed").join(", ") || "none"),
      column("Revoked", (t) => t.revoked_keys.length + t.revoked_tokens.length, (t) => `${t.revoked_keys.length} keys, ${t.revoked_tokens.length} tokens`),
      column("Quota", (t) => JSON.stringify(t.quota), (t) => quota(t.quota)),
    ],
  },
  policies: {
    title: "Policies",
    note: () => "Where the paths of tenants and forwards that name a policy may lead.",
    rows: () => policies,
    key: (policy) => String(policy.id),
    pick: (policy) => choosePolicy(policy.name),
    columns: [
      column("Policy", (p) => p.name),
      column("Number", (p) => p.id, undefined, number),
      column("Regions", (p) => p.regions_in_force.join(", "), (p) => p.regions_in_force.join(", ") || "any"),
      column("Providers", (p) => p.providers.join(", "), (p) => p.providers.join(", ") || "any"),
      column("Cells", (p) => p.cells.join(", "), (p) => p.cells.join(", ") || "none"),
      column("Relays allowed", (p) => p.relays.length, (p) => `${p.relays.length}: ${p.relays.slice(0, 8).join(", ")}${p.relays.length > 8 ? ", …" : ""}`, number),
    ],
  },
};

/** What a tenant's edges may use together, as far as it is limited. */
function quota(limits) {
  const words = { attachments: "attachments", flows: "flows", realtime_bps: "realtime", interactive_bps: "interactive", bulk_bps: "bulk", bytes_per_month: "bytes a month" };
  const set = Object.entries(words).filter(([name]) => typeof limits[name] === "number");
  const one = ([name, word]) => (name.endsWith("_bps") ? `${word} ${rate(limits[name])}` : `${limits[name].toLocaleString("en")} ${word}`);
  return set.map(one).join(", ") || "no limit";
}

const basis = ({ delay_basis: is }, words) => (is === "half_rtt" && words !== "unknown" ? `~ ${words}` : words);

function choosePolicy(name) {
  byId("pair-policy").value = name;
  byId("pair-policy").dispatchEvent(new Event("change", { bubbles: true }));
}

function services() {
  const found = new Map();
  for (const relay of state.overview?.relays ?? []) {
    for (const name of relay.services ?? []) {
      if (!found.has(name)) found.set(name, { name, relays: [] });
      found.get(name).relays.push(relay);
    }
  }
  return [...found.values()].map((service) => {
    const reached = service.relays.filter((relay) => relayState(relay) !== "down" && relayState(relay) !== "unknown").length;
    return { ...service, reached, state: reached ? "up" : "not reached" };
  });
}

let current = "relays";
const views = Object.fromEntries(Object.keys(TABLES).map((name) => [name, { sort: 0, descending: false, page: 0, search: "" }]));

export function start() {
  const tabs = byId("tabs");
  for (const [name, { title }] of Object.entries(TABLES)) {
    tabs.append(h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "table", "data-tab": name }, title));
  }
  tabs.addEventListener("click", ({ target }) => target.dataset.tab && open(target.dataset.tab));
  tabs.addEventListener("keydown", (event) => {
    const names = Object.keys(TABLES);
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    open(names[(names.indexOf(current) + step + names.length) % names.length]);
    byId(`tab-${current}`).focus();
  });
  open("relays");
  on("overview", update);
  on("felt", () => current === "felt" && update());
  on("drains", () => current === "drains" && update());
  on("events", (events) => events.some((event) => ["policy", "tenant"].includes(event.kind)) && loadTenants());
  loadTenants();
  setInterval(loadTenants, TENANTS_REFRESH);
}

async function loadTenants() {
  policies = (await ask("v1/policies").catch(() => ({ policies }))).policies;
  if (hasTenants) {
    tenants = (await ask("v1/tenants").catch(({ status }) => {
      hasTenants = status !== 404;
      return { tenants };
    })).tenants;
  }
  if (current === "tenants" || current === "policies") update();
}

function open(name) {
  current = name;
  for (const tab of byId("tabs").children) {
    const is = tab.dataset.tab === name;
    tab.setAttribute("aria-selected", is);
    tab.tabIndex = is ? 0 : -1;
  }
  build();
}

/** The frame of a table; its rows come and go in `update`. */
function build() {
  const table = TABLES[current];
  const view = views[current];
  const search = h("input", { type: "search", value: view.search, oninput: ({ target }) => { view.search = target.value; view.page = 0; update(); } });
  const heads = table.columns.map(({ title, number: isNumber }, at) =>
    h("th", { scope: "col", class: isNumber ? "number" : null }, h("button", { type: "button", "data-sort": at, onclick: () => sortBy(at) }, title)));
  const box = byId("table");
  box.setAttribute("role", "tabpanel");
  box.setAttribute("aria-labelledby", `tab-${current}`);
  box.replaceChildren(
    h("div", { class: "table-tools" },
      h("label", {}, "Search ", search),
      current === "links" ? h("label", {}, "Links of ", linkFilter()) : null,
      h("span", { id: "table-count", class: "note" })),
    h("p", { class: "note", id: "table-note" }),
    h("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": `Table of ${table.title.toLowerCase()}` },
      h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}))),
    h("div", { class: "pager buttons" },
      h("button", { type: "button", id: "page-back", onclick: () => turn(-1) }, "Back"),
      h("span", { id: "page-at" }),
      h("button", { type: "button", id: "page-on", onclick: () => turn(1) }, "On")));
  update();
}

/** The overview has the links that matter most; those of one relay are asked for. */
function linkFilter() {
  const filter = h("select", { id: "link-filter", onchange: async ({ target }) => {
    views.links.page = 0;
    await loadLinks(target.value);
  } });
  const relays = [...(state.overview?.relays ?? [])].sort((a, b) => collator.compare(a.name, b.name));
  filter.append(h("option", { value: "" }, "all relays"), ...relays.map(({ id, name }) => h("option", { value: id }, name)));
  filter.value = linksOf.relay;
  return filter;
}

async function loadLinks(relay) {
  const links = relay ? (await ask(`v1/links?relay=${relay}`).catch(() => ({ links: [] }))).links.map(glance) : [];
  linksOf = { relay, links, at: Date.now() };
  update();
}

function sortBy(at) {
  const view = views[current];
  view.descending = view.sort === at ? !view.descending : Boolean(TABLES[current].columns[at].number);
  view.sort = at;
  view.page = 0;
  update();
}

function turn(step) {
  views[current].page += step;
  update();
}

function update() {
  const table = TABLES[current];
  const view = views[current];
  if (current === "links" && linksOf.relay && Date.now() - linksOf.at > 3_000) {
    linksOf.at = Date.now();
    loadLinks(linksOf.relay);
  }
  const all = table.rows();
  const wanted = view.search.trim().toLowerCase();
  const rows = wanted ? all.filter((row) => table.columns.some(({ show }) => show(row).toLowerCase().includes(wanted))) : [...all];
  const { value } = table.columns[view.sort];
  const order = view.descending ? -1 : 1;
  rows.sort((a, b) => order * compare(value(a), value(b)) || collator.compare(table.key(a), table.key(b)));
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  view.page = Math.max(0, Math.min(view.page, pages - 1));
  const box = byId("table");
  box.querySelectorAll("th").forEach((head, at) => {
    if (at === view.sort) head.setAttribute("aria-sort", view.descending ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
  fillRows(box.querySelector("tbody"), table, rows.slice(view.page * PAGE, (view.page + 1) * PAGE));
  setText(byId("table-note"), table.note?.() ?? "");
  byId("table-note").hidden = !table.note?.();
  setText(byId("table-count"), count(all.length, rows.length));
  setText(byId("page-at"), `page ${view.page + 1} of ${pages}`);
  byId("page-back").disabled = view.page === 0;
  byId("page-on").disabled = view.page >= pages - 1;
}

function count(all, shown) {
  const part = all === shown ? `${all.toLocaleString("en")}` : `${shown.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  if (current !== "links" || linksOf.relay || !state.overview) return part;
  const { usable, unusable, unknown } = state.overview.link_counts;
  const total = usable + unusable + unknown;
  return total > all ? `${part}; the mesh has ${total.toLocaleString("en")}: choose a relay for all of its links` : part;
}

const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? (a === b ? 0 : a - b) : collator.compare(String(a), String(b)));

/** Puts rows in place, keeping elements where the row stays, so that focus and selection do too. */
function fillRows(body, table, rows) {
  const old = new Map([...body.children].map((row) => [row.dataset.key, row]));
  const wanted = rows.map((row) => {
    const key = table.key(row);
    const element = old.get(key) ?? newRow(table, key);
    element.row = row;
    table.columns.forEach(({ show, state: stateOf }, at) => {
      const cell = element.children[at];
      setText(at === 0 ? cell.firstChild : cell, show(row));
      if (stateOf) cell.className = `state is-${stateOf(row)}`;
    });
    return element;
  });
  if (!wanted.length) {
    body.replaceChildren(h("tr", { "data-key": "none" }, h("td", { colspan: table.columns.length }, state.overview ? "none" : "unknown yet")));
    return;
  }
  for (const [at, element] of wanted.entries()) {
    if (body.children[at] !== element) body.insertBefore(element, body.children[at] ?? null);
  }
  while (body.children.length > wanted.length) body.lastChild.remove();
}

function newRow(table, key) {
  const element = h("tr", { "data-key": key });
  table.columns.forEach(({ number: isNumber }, at) => {
    const inner = at === 0 ? h("button", { type: "button", class: "row-button", onclick: () => table.pick(element.row) }) : null;
    element.append(at === 0 ? h("th", { scope: "row" }, inner) : h("td", { class: isNumber ? "number" : null }));
  });
  return element;
}
