// What is being drained, for everybody; and for the operator the ways to drain and to take a drain back.

import { byId, setText } from "./dom.js";
import { age, delay, plural } from "./format.js";
import { mayChange, signedOut } from "./operator.js";
import { ask, change, emit, on, state } from "./state.js";

/** While something is drained its rest is asked for so often. */
const REFRESH = 2_000;
/** The API's bound, a month. */
const DEADLINE_MAX_MINUTES = 43_200;

let drains = [];
/** Requests for the list count, and what is shown is the answer to this one: an earlier one may be overtaken. */
let asked = 0;
let shown = 0;
let target = null;
/** Requests of the dialog that is open count; answers to an earlier one are passed over. */
let opened = 0;

export const listed = () => drains;

/** What a selection is called by the API: a relay, or the links between two. */
export const names = (selected) => (selected.relay === undefined ? selected.pair ?? [] : [selected.relay]).map((id) => state.byId.get(id)?.name);
const nameOf = (relays) => (relays.length === 1 ? relays[0] : `the links between ${relays.join(" and ")}`);
const pathOf = (relays) => `v1/drains/${relays.length === 1 ? "relay" : "link"}/${relays.map(encodeURIComponent).join("/")}`;

/** The drain of exactly this, if there is one. */
export function drainOf(selected) {
  const key = [...names(selected)].sort().join("\n");
  return drains.find(({ relays }) => [...relays].sort().join("\n") === key);
}

/** A drain in words. */
export function told({ stage, routes_left: routes, attachments_left: edges, empty, deadline_in_ms: left }) {
  if (empty) return "drained: no path and no edge is left on it";
  const rest = [plural(routes, "route"), ...(edges ? [plural(edges, "edge")] : [])].join(" and ");
  const end = stage === "over" ? "its deadline is over" : left === null ? "no deadline" : `${age(left)} to its deadline`;
  return `draining: ${rest} still on it, ${end}`;
}

export function start() {
  on("events", (events) => events.some(({ kind }) => kind === "drain") && load());
  on("connected", (is) => is && load());
  setInterval(() => drains.length && load(), REFRESH);
  byId("drain").addEventListener("close", () => { target = null; });
  byId("drain-cancel").addEventListener("click", () => byId("drain").close());
  byId("drain-form").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  byId("drain-deadline").max = DEADLINE_MAX_MINUTES;
  load();
}

async function load() {
  asked += 1;
  const mine = asked;
  const body = await ask("v1/drains").catch(() => null);
  if (!body || mine < shown) return;
  shown = mine;
  if (JSON.stringify(body.drains) === JSON.stringify(drains)) return;
  drains = body.drains;
  emit("drains", drains);
}

/** Asks for confirmation, and says what the change would do before it is done. */
export function confirm(selected) {
  if (!mayChange()) return;
  const relays = names(selected);
  const undo = Boolean(drainOf(selected));
  target = { relays, undo };
  opened += 1;
  setText(byId("drain-title"), undo ? `Take the drain of ${nameOf(relays)} back?` : `Drain ${nameOf(relays)}?`);
  setText(byId("drain-what"), undo
    ? "Paths may go over it again, as costs have it."
    : relays.length === 1
      ? "Paths leave it where another way leads, and edges attach elsewhere; nothing is cut off before the deadline. What begins or ends there stays."
      : "Paths leave them where another way leads; nothing is cut off before the deadline.");
  setText(byId("drain-effect"), undo ? "" : "Asking what would change …");
  setText(byId("drain-submit"), undo ? "Take it back" : "Drain");
  setText(byId("drain-error"), "");
  byId("drain-deadline").value = "";
  byId("drain-deadline-row").hidden = undo;
  byId("drain-submit").disabled = false;
  byId("drain").showModal();
  if (!undo) foresee(relays, opened);
}

async function foresee(relays, mine) {
  const cut = relays.length === 1 ? { relays } : { links: [relays] };
  const text = await change("POST", "v1/what-if", cut).then(effect, (error) => `What would change is unknown: ${error.message}.`);
  if (mine === opened) setText(byId("drain-effect"), text);
}

function effect({ changed, unreachable, delay_change_us_median: median, delay_change_us_max: most, routes, ends_cut: ends }) {
  if (!changed) return `None of ${plural(routes - ends, "route")} would change.`;
  const slower = most === null ? "" : `, by ${delay(Math.max(0, median))} in the middle and ${delay(Math.max(0, most))} at most`;
  const cut = unreachable ? ` ${plural(unreachable, "route")} would have no other path: these stay until the deadline.` : "";
  return `${plural(changed, "route")} of ${(routes - ends).toLocaleString("en")} would change${slower}.${cut}`;
}

async function submit() {
  const { relays, undo } = target;
  const minutes = byId("drain-deadline").value.trim();
  byId("drain-submit").disabled = true;
  setText(byId("drain-error"), "");
  try {
    if (undo) await change("DELETE", pathOf(relays));
    else await change("PUT", pathOf(relays), minutes === "" ? {} : { deadline_s: Math.round(Number(minutes) * 60) });
    byId("drain").close();
    setText(byId("announce"), undo ? `The drain of ${nameOf(relays)} is taken back.` : `${nameOf(relays)}: drain begun.`);
    await load();
  } catch (error) {
    byId("drain-submit").disabled = false;
    if (error.status === 401) {
      byId("drain").close();
      return signedOut("The scheduler no longer takes this token. Sign in again.");
    }
    setText(byId("drain-error"), `Not done: ${error.message}.`);
  }
}
