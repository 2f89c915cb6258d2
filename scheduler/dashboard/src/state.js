// What the scheduler says, live. One stream brings events and overviews; the rest is asked for.

const HOUR = 3_600_000;
const EVENTS_MAX = 10_000;

export const state = {
  /** The last overview, with relays by id in `byId` and links by pair in `pairs`. */
  overview: null,
  byId: new Map(),
  events: [],
  connected: false,
  /** The server's clock less this one's, in milliseconds. */
  skew: 0,
  /** What is looked at: { relay: id } or { pair: [id, id] }. */
  selected: {},
};

const listeners = new Map();

export function on(kind, listener) {
  if (!listeners.has(kind)) listeners.set(kind, []);
  listeners.get(kind).push(listener);
}

export function emit(kind, detail) {
  for (const listener of listeners.get(kind) ?? []) listener(detail);
}

/** Who looks: the operator's token, or null. Nothing else has it, and it is nowhere kept. */
export const operator = { token: null };

/** Asks the admin interface; what it refuses is thrown with its own words. */
export const ask = (path, headers = {}) => request(path, { headers });

/** Changes something, as the operator. */
export function change(method, path, body) {
  const headers = { authorization: `Bearer ${operator.token}`, "content-type": "application/json" };
  return request(path, { method, headers, body: body && JSON.stringify(body) });
}

async function request(path, options) {
  const headers = { accept: "application/json", ...options.headers };
  const answer = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(body.error ?? `${answer.status} ${answer.statusText}`), { status: answer.status });
  }
  return answer.status === 204 ? null : answer.json();
}

export const relayName = (id) => state.byId.get(id)?.name ?? `r${id}`;
export const now = () => Date.now() + state.skew;

export function select(selected) {
  state.selected = selected;
  emit("selected", selected);
}

/** How a relay is, in a word. */
export function relayState(relay) {
  if (!relay.registered) return "unknown";
  if (relay.links > 0 && relay.links_usable === 0) return "down";
  if (relay.drain || relay.draining) return "draining";
  if (!relay.connected) return "suspect";
  return "up";
}

export const RELAY_STATES = {
  up: "up",
  draining: "draining",
  suspect: "no word to the scheduler",
  down: "down: no link leads to it",
  unknown: "unknown: never seen",
};

function take(overview) {
  state.skew = overview.at_unix_ms - Date.now();
  state.byId = new Map(overview.relays.map((relay) => [relay.id, relay]));
  state.overview = overview;
  emit("overview", overview);
}

function addEvents(events) {
  const last = state.events.at(-1)?.sequence ?? 0;
  const fresh = events.filter((event) => event.sequence > last);
  if (!fresh.length) return;
  state.events.push(...fresh);
  const oldest = now() - HOUR;
  const keep = state.events.findIndex((event) => event.at_unix_ms >= oldest);
  const drop = Math.max(keep < 0 ? 0 : keep, state.events.length - EVENTS_MAX);
  if (drop > 0) state.events.splice(0, drop);
  emit("events", fresh);
}

export function follow() {
  let boot = null;
  let source;
  let retry;
  const open = () => {
    source = new EventSource("v1/events/stream");
    source.addEventListener("open", () => connected(true));
    source.addEventListener("error", () => {
      connected(false);
      // Refused outright: the browser does not try again by itself.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(retry);
        retry = setTimeout(open, 3_000);
      }
    });
    source.addEventListener("boot", ({ data }) => {
      if (boot !== null && boot !== data) {
        state.events = [];
        emit("events", []);
      }
      boot = data;
    });
    source.addEventListener("overview", ({ data }) => take(JSON.parse(data)));
    source.addEventListener("events", ({ data }) => addEvents(JSON.parse(data)));
  };
  open();
  ask("v1/overview").then(take, () => {});
}

function connected(is) {
  if (state.connected === is) return;
  state.connected = is;
  emit("connected", is);
}
