// What users feel, by service, region and class, as their ends report it. Of links and pairs nobody feels anything:
// a flow's ends know its whole way.

import { ask, emit } from "./state.js";

/** Ends report each ten seconds. */
const REFRESH = 10_000;

export const felt = {
  /** Of `GET /v1/quality`; null before it has answered. */
  services: null,
  /** Why there is no answer. */
  problem: null,
};

export const serviceName = ({ tenant, service }) => `${tenant === null ? "" : `${tenant}/`}${service ?? "(others)"}`;
export const keyOf = ({ tenant, service, region, class: its }) => JSON.stringify([tenant, service, region, its]);

/** One of them in words. */
export const feltName = (row) => `${serviceName(row)}, ${row.region ?? "region unknown"}, ${row.class}`;

/** As `GET /v1/history` wants it. */
export function historyQuery(key) {
  const [tenant, service, region, its] = JSON.parse(key);
  const named = Object.entries({ class: its, tenant, service, region }).filter(([, value]) => value !== null);
  return `?${new URLSearchParams(named)}`;
}

export function start() {
  load();
  setInterval(() => document.hidden || load(), REFRESH);
}

async function load() {
  await ask("v1/quality").then(
    ({ services }) => Object.assign(felt, { services, problem: null }),
    (error) => Object.assign(felt, { problem: error.message }),
  );
  emit("felt", felt);
}
