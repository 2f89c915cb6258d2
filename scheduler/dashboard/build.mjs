// Builds dist/ from src/. With --check, says whether dist/ is what would be built, and changes nothing.
import { readFileSync, writeFileSync, readdirSync, existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");

const { outputFiles, metafile } = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.js" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome111", "firefox113", "safari16.4"],
  legalComments: "none",
  metafile: true,
  write: false,
});
const files = new Map(outputFiles.map((file) => [file.path.split("/").pop(), file.text]));
files.set("index.html", readFileSync(join(here, "src/index.html"), "utf8"));
files.set("licenses.txt", licenses(metafile));

/** Texts of the licences of every package that is in the bundle. */
function licenses({ inputs }) {
  const packages = new Set();
  for (const input of Object.keys(inputs)) {
    const found = input.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (found) packages.add(found[1]);
  }
  const parts = ["The dashboard contains these packages. The map is Natural Earth's, in the public domain.\n"];
  for (const name of [...packages].sort()) {
    const folder = join(here, "node_modules", name);
    const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = readdirSync(folder).find((file) => /^licen[sc]e/i.test(file));
    const text = file ? readFileSync(join(folder, file), "utf8").trim() : "";
    parts.push(`${"-".repeat(80)}\n${name} ${version} (${license})\n\n${text}\n`);
  }
  return parts.join("\n");
}

let stale = 0;
for (const [name, text] of files) {
  const path = join(dist, name);
  if (process.argv.includes("--check")) {
    const same = existsSync(path) && readFileSync(path, "utf8") === text;
    if (!same) console.error(`dist/${name} is not what src/ makes: npm ci && npm run build`);
    stale += !same;
  } else {
    writeFileSync(path, text);
    console.log(`dist/${name} ${Buffer.byteLength(text)}`);
  }
}
process.exitCode = stale ? 1 : 0;
