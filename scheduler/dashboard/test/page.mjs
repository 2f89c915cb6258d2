// The dashboard in a real browser, against a lab of real processes: `npm test`.
//
// Needs a Chromium (CHROMIUM names one that is not in a usual place) and the overway program (OVERWAY, else of target/).
// Where one of them is missing it says so, and passes; with REQUIRE_BROWSER set it fails. Screenshots go to CI_ARTIFACTS,
// or to the system's temporary directory. With FROM_DIST set the page is that of dist/, and the program need not be built
// anew after each change.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { large } from "./large.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../../..");
const program = [process.env.OVERWAY, join(root, "target/release/overway"), join(root, "target/debug/overway")].find((path) => path && existsSync(path));
const browserPath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));
const shots = join(process.env.CI_ARTIFACTS ?? tmpdir(), "dashboard");

const missing = !program ? "the overway program is not built" : !browserPath ? "no Chromium is installed" : !existsSync(join(here, "../node_modules/playwright-core")) ? "npm ci was not run in scheduler/dashboard" : null;
if (missing) {
  console.log(`SKIPPED the dashboard's browser test: ${missing}`);
  process.exit(process.env.REQUIRE_BROWSER ? 1 : 0);
}
const { chromium } = await import("playwright-core");
const axe = readFileSync(join(here, "../node_modules/axe-core/axe.min.js"), "utf8");
mkdirSync(shots, { recursive: true });

/** From the freeze, the start of the program that does it included, until it is told and drawn. */
const SEEN_WITHIN_MS = 1_000;
const FIRST_PAINT_MS = 1_000;
const LAB_MS = 240_000;

function lab() {
  const dir = mkdtempSync(join(tmpdir(), "overway-dashboard-"));
  const child = spawn(program, ["lab", "--dir", join(dir, "lab")], { stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  const ready = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`the lab is not up:\n${text}`)), LAB_MS);
    child.on("exit", (code) => reject(new Error(`the lab ended (${code}):\n${text}`)));
    child.stdout.on("data", (data) => {
      text += data;
      // Then its own drills are over.
      if (!text.includes("The mesh stays up")) return;
      clearTimeout(timer);
      resolve(/admin interface at (http:\S+)/.exec(text)[1]);
    });
  });
  const verb = (...words) => execFileSync(program, ["lab", ...words, "--dir", join(dir, "lab")], { encoding: "utf8" });
  const end = async () => {
    child.removeAllListeners("exit");
    const exited = new Promise((resolve) => child.on("exit", resolve));
    child.kill("SIGTERM");
    await exited;
    rmSync(dir, { recursive: true, force: true });
  };
  const token = () => readFileSync(join(dir, "lab/scheduler/admin.token"), "utf8").trim();
  return { ready, verb, end, token };
}

const complaints = [];
const files = new Map([["/", "index.html"], ["/app.js", "app.js"], ["/app.css", "app.css"]]);

/** The file of dist/ in place of the one in the program, with the program's headers. */
async function fromDist(route) {
  const { pathname } = new URL(route.request().url());
  const response = await route.fetch();
  await route.fulfill({ response, status: 200, body: readFileSync(join(here, "../dist", files.get(pathname))) });
}

async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1400, height: 900 }, ...options });
  const page = await context.newPage();
  page.on("console", (message) => {
    // A scheduler without tenants is asked for them once, and says that it has none.
    const isExpected = message.location().url.endsWith("/v1/tenants");
    if (["error", "warning"].includes(message.type()) && !isExpected) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.stack));
  // What is not the scheduler's own is not to be asked for.
  page.on("request", (request) => {
    const { protocol, origin } = new URL(request.url());
    if (protocol !== "data:" && origin !== new URL(url).origin) complaints.push(`asked for ${request.url()}`);
  });
  if (process.env.FROM_DIST) await page.route((asked) => files.has(asked.pathname), fromDist);
  await options.before?.(page);
  await page.goto(url);
  return page;
}

async function accessible(page, what) {
  // Straight into the page: its policy forbids foreign scripts, this one is ours.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const text = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map(({ html, failureSummary }) => `  ${html.slice(0, 200)}\n  ${failureSummary}`).join("\n")}`);
  assert.equal(violations.length, 0, `${what}:\n${text.join("\n")}`);
}

const step = (text) => console.log(text);

async function whole(page) {
  await page.waitForFunction(() => document.querySelectorAll("#map [data-relay]").length > 0);
  const { relays, links } = await page.evaluate(async () => {
    const { relays, links } = await (await fetch("v1/overview")).json();
    return { relays: relays.length, links: links.length };
  });
  const shown = () => page.evaluate(() => ({
    relays: document.querySelectorAll("#map [data-relay]").length,
    links: [...document.querySelectorAll("#map [data-pair]")].reduce((sum, pair) => sum + Number(pair.dataset.links), 0),
  }));
  assert.deepEqual(await shown(), { relays, links });
  assert.ok(relays >= 12 && links >= 132, `${relays} relays, ${links} links`);
  step(`the map has all ${relays} relays and ${links} links`);
}

async function paints(browser, url) {
  const times = [];
  for (let at = 0; at < 3; at += 1) {
    const page = await open(browser, url);
    await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
    times.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    await page.context().close();
  }
  const best = Math.min(...times);
  step(`first paint after ${Math.round(best)} ms`);
  assert.ok(best < FIRST_PAINT_MS, `first paint after ${times.map(Math.round)} ms`);
}

/** A pair of the lab with running flows whose path goes over another relay. */
async function transitPair(page, { verb }) {
  for (let tries = 0; tries < 60; tries += 1) {
    const { forwards } = JSON.parse(verb("status", "--json"));
    for (const { entry, exit, path } of forwards) {
      if (!path || path.length < 3) continue;
      const query = `v1/explain?from=${entry}&to=${exit}&class=realtime`;
      const answer = await page.evaluate(async (query) => (await fetch(query)).json(), query);
      const relays = answer.current?.path?.map((hop) => hop.name) ?? [];
      const ends = new Set(forwards.flatMap((forward) => [forward.entry, forward.exit]));
      const transit = relays.find((name) => path.slice(1, -1).includes(name));
      if (relays.length > 1 && transit && !ends.has(transit)) return { entry, exit, transit };
    }
    await page.waitForTimeout(1_000);
  }
  throw new Error("no flow of the lab takes a detour");
}

async function freeze(page, mesh) {
  const { entry, exit, transit } = await transitPair(page, mesh);
  await page.selectOption("#pair-class", "realtime");
  await page.selectOption("#pair-from", { label: entry });
  await page.selectOption("#pair-to", { label: exit });
  const used = (page, transit, there) => page.waitForFunction(([transit, there]) => {
    const hops = document.querySelector(".candidate-card.used .hops")?.textContent;
    return hops && hops.includes(transit) === there;
  }, [transit, there], { timeout: 20_000 });
  await used(page, transit, true);
  await page.waitForFunction(() => document.querySelector("#map .path.in-use"));
  const drawn = await page.getAttribute("#map .path.in-use:not(.casing)", "data-path");
  assert.ok(drawn.split("-").length >= 3, drawn);
  await page.screenshot({ path: join(shots, "paths.png") });

  const last = await page.evaluate(async () => (await (await fetch("v1/events")).json()).events.at(-1).sequence);
  const frozen = Date.now();
  mesh.verb("freeze", transit);
  const told = page.waitForFunction(([transit, last]) => {
    const entries = [...document.querySelectorAll('#event-list li[data-kind="link_unusable"], #event-list li[data-kind="relay_unreached"]')];
    return entries.some((entry) => Number(entry.dataset.last) > last && entry.textContent.includes(transit));
  }, [transit, last], { polling: 20 }).then(() => Date.now() - frozen);
  const moved = used(page, transit, false).then(() => Date.now() - frozen);
  const [toldMs, movedMs] = await Promise.all([told, moved]);
  step(`${transit} froze: told after ${toldMs} ms, ${entry} to ${exit} is drawn without it after ${movedMs} ms`);
  await page.waitForFunction((transit) => [...document.querySelectorAll("#map .relay.is-down")].some((relay) => relay.textContent.includes(transit)), transit, { timeout: 20_000 });
  await page.selectOption("#theme", "dark");
  await page.screenshot({ path: join(shots, "failure.png") });
  await accessible(page, "with a relay down");
  await page.selectOption("#theme", "auto");
  mesh.verb("restore");
  assert.ok(toldMs <= SEEN_WITHIN_MS && movedMs <= SEEN_WITHIN_MS, `told after ${toldMs} ms, moved after ${movedMs} ms`);
  await page.waitForFunction(() => !document.querySelector("#map .relay.is-down"), undefined, { timeout: 60_000 });
}

async function keyboard(page) {
  await page.reload();
  await page.waitForSelector(".candidate-card.used");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  const reached = new Set();
  for (let presses = 0; presses < 60; presses += 1) {
    await page.keyboard.press("Tab");
    reached.add(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
  }
  for (const id of ["sign-in-button", "theme", "zoom-in", "pair-from", "pair-to", "pair-class", "candidate-card used", "timeline", "event-list", "chart-of", "tab-relays"]) {
    assert.ok(reached.has(id), `${id} is not reached by Tab: ${[...reached]}`);
  }
  // Events of one relay can be selected; those of many that stand together cannot.
  await page.waitForSelector("#event-list li button");
  await page.focus("#event-list");
  await page.keyboard.press("ArrowDown");
  assert.match(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), /^Select /);
  await page.focus("#tab-relays");
  await page.keyboard.press("ArrowRight");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-links");
  await page.waitForSelector('th[aria-sort="ascending"] >> text=From');
  await page.focus('[data-sort="4"]');
  await page.keyboard.press("Enter");
  await page.waitForSelector('th[aria-sort="descending"] >> text=Delay');
  await page.focus("#table tbody tr:first-child button");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#selected:not([hidden])");
  const charts = await page.waitForSelector('#charts [role="img"][aria-label^="Delay of"]');
  assert.match(await charts.getAttribute("aria-label"), /now|unknown/);
  for (const tab of ["drains", "services", "tenants", "policies", "relays"]) {
    await page.click(`#tab-${tab}`);
    await accessible(page, `the table of ${tab}`);
  }
  step("everything is reached by keyboard");
}

/** What the browser itself says of an answer that is no success is expected where one is asked for. */
async function refused(page, status, action) {
  const known = complaints.length;
  const done = await action();
  // It may be told a moment after the answer.
  await page.waitForTimeout(200);
  complaints.splice(known, Infinity, ...complaints.slice(known).filter((text) => !text.includes(String(status))));
  return done;
}

/** Buttons on the page that change something, tabs aside. */
const offers = (page) => page.evaluate(() => [...document.querySelectorAll('button:not([role="tab"])')].filter((one) => one.offsetParent && /drain|sign out/i.test(one.textContent)).length);
const drainsNow = (page) => page.evaluate(async () => (await (await fetch("v1/drains")).json()).drains);

/** Picks a row of a table by its first cell. */
async function pick(page, tab, search) {
  await page.click(`#tab-${tab}`);
  await page.fill('#table input[type="search"]', search);
  await page.click("#table tbody tr:first-child button");
  await page.waitForSelector("#selected:not([hidden])");
}

async function signIn(page, mesh) {
  await pick(page, "relays", "frankfurt");
  assert.equal(await offers(page), 0, "signed out nothing that changes is offered");
  const status = await refused(page, 401, () => page.evaluate(async () => (await fetch("v1/drains/relay/frankfurt", { method: "PUT", headers: { "content-type": "application/json" }, body: "{}" })).status));
  assert.equal(status, 401, "a page without the token changes nothing");

  await page.focus("#sign-in-button");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "token");
  await accessible(page, "signing in");
  await page.keyboard.type("admin-guessed");
  await refused(page, 401, async () => {
    await page.keyboard.press("Enter");
    await page.waitForSelector("#sign-in-error >> text=not the admin token");
    await accessible(page, "a wrong token");
  });
  await page.keyboard.press("Escape");
  assert.equal(await page.textContent("#who"), "read only");
  assert.equal(await page.inputValue("#token"), "", "what was typed is forgotten");
  assert.equal(await offers(page), 0);
  await page.click("#sign-in-button");
  await page.fill("#token", mesh.token());
  await page.keyboard.press("Enter");
  await page.waitForSelector("#who >> text=signed in");
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.ok(!kept.includes(mesh.token()), "the token is nowhere kept");
  step("the operator signs in, a guesser does not");
}

/** Holds back the next list of drains that the page asks for, as it is now; what comes of it lets the page have it. */
async function overtaken(page) {
  let free;
  const freed = new Promise((done) => { free = done; });
  const held = await new Promise((hold) => {
    page.route("**/v1/drains", async (route) => {
      const response = await route.fetch();
      hold(route.request());
      await freed;
      await route.fulfill({ response });
    }, { times: 1 });
  });
  return async () => {
    const come = page.waitForEvent("requestfinished", (request) => request === held);
    free();
    await come;
    // Until what waited for the answer has run.
    await page.evaluate(() => new Promise((done) => setTimeout(done)));
  };
}

/** Drains what is selected, sees it, and takes it back; `shown` waits for what the page shows of it. */
async function drain(page, name, shown) {
  assert.deepEqual(await drainsNow(page), []);
  await page.focus('[data-act="drain"]');
  await page.keyboard.press("Enter");
  await page.waitForSelector("#drain[open]");
  await page.waitForFunction(() => /\d routes? (of [\d,]+ )?would change/.test(document.querySelector("#drain-effect").textContent));
  await accessible(page, "before a drain");
  await page.screenshot({ path: join(shots, `drain-${name}.png`) });
  await page.keyboard.press("Escape");
  assert.deepEqual(await drainsNow(page), [], "what is not confirmed is not done");
  await page.click('[data-act="drain"]');
  await page.fill("#drain-deadline", "60");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#drain", { state: "hidden" });
  await page.waitForFunction(() => /drained|draining/.test(document.querySelector("#selected").textContent));
  await shown?.();
  const [{ deadline_in_ms: left }] = await drainsNow(page);
  assert.ok(left > 3_500_000 && left <= 3_600_000, `the deadline is in ${left} ms`);
  await page.click("#tab-drains");
  await page.waitForFunction(() => document.querySelectorAll('#table tbody tr:not([data-key="none"])').length === 1);
  await page.waitForFunction(() => document.querySelector("#table tbody tr").children[3].textContent === "0", undefined, { timeout: 60_000 });
  await accessible(page, "with a drain");
  await page.click('[data-act="drain"]');
  await page.waitForSelector("#drain-title >> text=back");
  const deliver = await overtaken(page);
  await page.click("#drain-submit");
  await page.waitForFunction(() => !/drain(ed|ing):/.test(document.querySelector("#selected").textContent));
  await deliver();
  assert.doesNotMatch(await page.textContent("#selected"), /drain(ed|ing):/, "an answer from before is shown after it");
  assert.deepEqual(await drainsNow(page), []);
}

async function operate(page, mesh) {
  await signIn(page, mesh);
  await drain(page, "relay", () => page.waitForFunction(() => [...document.querySelectorAll("#map .relay.is-draining")].some((relay) => relay.textContent.includes("frankfurt"))));
  await pick(page, "links", "frankfurt");
  await drain(page, "links");
  await page.waitForSelector('#event-list li[data-kind="drain"]');
  await page.click("#sign-in-button");
  assert.equal(await offers(page), 0, "signed out again");
  await page.click("#sign-in-button");
  await page.fill("#token", mesh.token());
  await page.keyboard.press("Enter");
  await page.waitForSelector("#who >> text=signed in");
  await page.reload();
  await page.waitForSelector("#who >> text=read only");
  step("the operator drains a relay and links, sees it, and takes it back");
}

async function feels(page) {
  await page.click("#tab-felt");
  await page.waitForSelector('#table tbody tr:not([data-key="none"])', { timeout: 60_000 });
  await accessible(page, "what users feel");
  await page.focus("#table tbody tr:first-child button");
  const name = await page.textContent("#table tbody tr:first-child button");
  await page.keyboard.press("Enter");
  const gap = await page.waitForSelector(`#charts [role="img"][aria-label^="Gap of users of ${name}"]`);
  assert.match(await gap.getAttribute("aria-label"), /now|unknown/);
  await accessible(page, "charts of what users feel");
  await page.selectOption("#chart-of", "mesh");
  for (const chart of ["Delay", "Loss", "Gap", "Stall", "Traffic"]) {
    await page.waitForSelector(`#charts [role="img"][aria-label^="${chart} of the whole mesh"]`);
  }
  await page.evaluate(() => document.querySelector(".charts-panel").scrollIntoView());
  await page.screenshot({ path: join(shots, "felt.png") });
  await page.evaluate(() => scrollTo(0, 0));
  step("gaps stand beside delay, loss and traffic, and users' feelings in a table");
}

async function timeline(page) {
  const marks = await page.locator("#timeline .mark").count();
  assert.ok(marks > 0, "no mark on the time line");
  await page.evaluate(() => { document.querySelector("#timeline").scrollLeft = 100; });
  await page.waitForTimeout(6_000);
  assert.equal(await page.evaluate(() => document.querySelector("#timeline").scrollLeft), 100, "it stays where it was scrolled to");
  await page.click("#event-now");
  const { scrollLeft, clientWidth } = await page.evaluate(() => { const { scrollLeft, clientWidth } = document.querySelector("#timeline"); return { scrollLeft, clientWidth }; });
  assert.equal(Math.round(scrollLeft + clientWidth), 3_600, "an hour is there");
  await page.selectOption("#event-filter", "trouble");
  await page.waitForFunction(() => [...document.querySelectorAll("#event-list li")].every((entry) => entry.className === "trouble"));
  await page.selectOption("#event-filter", "");
  step(`the time line has ${marks} marks`);
}

async function phone(browser, url) {
  const page = await open(browser, url, { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2 });
  await page.waitForSelector("#map [data-relay]");
  await page.waitForSelector(".candidate-card.used");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `the page is ${width} pixels wide`);
  await accessible(page, "on a phone");
  await page.screenshot({ path: join(shots, "phone.png") });
  await page.screenshot({ path: join(shots, "phone-all.png"), fullPage: true });
  await page.context().close();
  step("a phone shows it without scrolling sideways");
}

/** A mesh of a thousand relays, made up: what the scheduler would send of it. */
async function thousand(browser, url) {
  const body = JSON.stringify(large(1_000, 1_500));
  const stream = `retry: 1000\nevent: boot\ndata: 7\n\nevent: overview\ndata: ${body}\n\n`;
  const before = async (page) => {
    await page.route("**/v1/overview", (route) => route.fulfill({ body, contentType: "application/json" }));
    await page.route("**/v1/events/stream", (route) => route.fulfill({ body: stream, contentType: "text/event-stream" }));
    await page.route("**/v1/explain*", (route) => route.fulfill({ status: 409, body: '{"error":"no path"}', contentType: "application/json" }));
    await page.route("**/v1/history*", (route) => route.fulfill({ body: '{"at_unix_ms":[],"series":{}}', contentType: "application/json" }));
    await page.route("**/v1/links*", (route) => route.fulfill({ body: '{"links":[]}', contentType: "application/json" }));
  };
  const known = complaints.length;
  const page = await open(browser, url, { before });
  await page.waitForFunction(() => document.querySelectorAll("#map [data-relay]").length === 1_000);
  const acted = await page.evaluate(async () => {
    const frame = () => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
    const once = async (action) => { const start = performance.now(); action(); await frame(); return performance.now() - start; };
    // The least of three: other programs have their time too.
    const timed = async (action) => Math.min(await once(action), await once(action), await once(action));
    const click = (selector) => document.querySelector(selector).click();
    return {
      links: await timed(() => click("#tab-links")),
      sort: await timed(() => click('[data-sort="4"]')),
      zoom: await timed(() => click("#zoom-in")),
      pick: await timed(() => document.querySelector('[data-relay="17"]').dispatchEvent(new MouseEvent("click", { bubbles: true }))),
    };
  });
  assert.match(await page.textContent("#table-count"), /1,500; the mesh has 999,000/);
  await page.click("#tab-relays");
  assert.match(await page.textContent("#page-at"), /page 1 of 40/);
  await page.fill('#table input[type="search"]', "relay-777");
  await page.waitForFunction(() => document.querySelectorAll("#table tbody tr").length === 1);
  const worst = Math.max(...Object.values(acted));
  step(`a thousand relays: what is clicked is done after ${Math.round(worst)} ms at most`);
  assert.ok(worst < 1_000, JSON.stringify(acted));
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: join(shots, "thousand.png") });
  await page.context().close();
  // What it was given for answers is told by the browser as an error.
  complaints.splice(known, Infinity, ...complaints.slice(known).filter((text) => !text.includes("409")));
}

const mesh = lab();
const browser = await chromium.launch({ executablePath: browserPath, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
try {
  const url = await mesh.ready;
  await paints(browser, url);
  const page = await open(browser, url, { colorScheme: "light" });
  await whole(page);
  await page.waitForSelector(".candidate-card.used");
  await accessible(page, "light");
  await freeze(page, mesh);
  await timeline(page);
  await operate(page, mesh);
  await feels(page);
  await keyboard(page);
  await page.screenshot({ path: join(shots, "light.png"), fullPage: true });
  await page.selectOption("#theme", "dark");
  await accessible(page, "dark");
  await page.screenshot({ path: join(shots, "dark.png"), fullPage: true });
  await page.context().close();
  await phone(browser, url);
  await thousand(browser, url);
  assert.deepEqual(complaints, []);
  step(`no errors on the console; screenshots are in ${shots}`);
} finally {
  await browser.close();
  await mesh.end();
}
