// Numbers and times for people. What is not known is shown as such.

export const UNKNOWN = "unknown";

const known = (value) => value !== null && value !== undefined;

export function delay(us) {
  if (!known(us)) return UNKNOWN;
  const ms = us / 1000;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

export function loss(ppm) {
  if (!known(ppm)) return UNKNOWN;
  const percent = ppm / 1e4;
  if (percent === 0) return "0 %";
  return percent < 0.01 ? "< 0.01 %" : `${percent.toFixed(percent < 1 ? 2 : 1)} %`;
}

/** A part of a whole, with as many digits as tell 99.9 from 100. */
export function part(some, whole) {
  if (!known(some) || !whole) return UNKNOWN;
  if (some === whole) return "100 %";
  const percent = (100 * some) / whole;
  return `${Math.min(percent, 99.999).toFixed(percent > 99 || percent < 1 ? 3 : 1)} %`;
}

/** Milliseconds, and the same of seconds. */
export const millis = (ms) => delay(known(ms) ? ms * 1000 : null);
export const seconds = (s) => (known(s) ? (s < 1 ? delay(s * 1e6) : `${s.toFixed(1)} s`) : UNKNOWN);

export function rate(bps) {
  if (!known(bps)) return UNKNOWN;
  for (const [unit, size] of [["Gbit/s", 1e9], ["Mbit/s", 1e6], ["kbit/s", 1e3]]) {
    if (bps >= size) {
      const value = bps / size;
      return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`;
    }
  }
  return `${bps} bit/s`;
}

export const share = (permille) => (known(permille) ? `${(permille / 10).toFixed(permille < 100 ? 1 : 0)} %` : UNKNOWN);

export function age(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 1000) return "less than a second";
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} days`;
}

const CLOCK = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export const clock = (ms) => CLOCK.format(ms);
export const minute = (ms) => MINUTE.format(ms);

export const text = (value) => value || UNKNOWN;

export const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
