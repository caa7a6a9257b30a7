// Looks at the pages of a sidecar and of a broker in headless Chromium, while the test kills a node and then the sidecar.
//
//   node browser.js PEERS SIDECAR BROKER TOKEN VICTIM [SHOTS]
//
// SIDECAR and BROKER are URLs, TOKEN is that of the sidecar's pages, VICTIM is the name of the node that will die. Screenshots go to the folder
// SHOTS. Events on standard output: `shown`, then after the input line `killed` `moved`, after the line `stopped` `silent`. Any fault ends
// the program with `error TEXT`.

const assert = require("node:assert");
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const [peers, sidecarUrl, brokerUrl, token, victim, shots] = process.argv.slice(2);
const library = (folder, name) => path.join(peers, folder, "node_modules", name);
const puppeteer = require(library("puppeteer", "puppeteer-core"));
const axe = fs.readFileSync(path.join(library("axe", "axe-core"), "axe.min.js"), "utf8");

const TIMEOUT = 20_000;
const WIDE = { width: 1280, height: 900 };
const PHONE = { width: 360, height: 740 };

const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function told(word) {
  const { value } = await lines.next();
  assert.strictEqual(value, word);
}

/** Opens a page. Faults of its scripts, forbidden loads and requests to other hosts are gathered in `faults`. */
async function open(browser, url, faults) {
  const page = await browser.newPage();
  await page.setViewport(WIDE);
  page.on("pageerror", (error) => faults.push(`${url}: ${error}`));
  page.on("console", (message) => {
    const isExpected = /status of 401|net::ERR_/.test(message.text());
    if (message.type() === "error" && !isExpected) faults.push(`${url}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).host !== new URL(url).host) faults.push(`${url} loads ${request.url()}`);
  });
  page.setDefaultTimeout(TIMEOUT);
  await page.goto(url);
  return page;
}

/** Waits until the text of the elements contains `text`. */
const shows = (page, selector, text) =>
  page.waitForFunction(
    (where, wanted) => [...document.querySelectorAll(where)].some((found) => found.textContent.includes(wanted)),
    { polling: 50 },
    selector,
    text,
  );

const theme = (page, value) => page.emulateMediaFeatures([{ name: "prefers-color-scheme", value }]);

async function shoot(page, name) {
  if (!shots) return;
  await page.screenshot({ path: path.join(shots, `${name}.png`), fullPage: true });
}

/** Fails if the page is wider than its window. */
async function fits(page, name) {
  const [content, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  await shoot(page, name);
  assert.ok(content <= screen, `${name} is ${content} px wide in a window of ${screen} px`);
}

/** Fails if axe finds a violation, or if the page is wider than its window. */
async function examine(page, name) {
  const found = await page.evaluate(async () => {
    const { violations } = await window.axe.run({ resultTypes: ["violations"] });
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join("; ")}`);
  });
  assert.deepStrictEqual(found, [], name);
  await fits(page, name);
}

/** Examines a page in the light, and on a phone in the dark. */
async function examineAll(page, name) {
  await page.evaluate(axe);
  await examine(page, `${name}-light`);
  await theme(page, "dark");
  await shoot(page, `${name}-dark`);
  await page.setViewport(PHONE);
  await examine(page, `${name}-phone`);
  await theme(page, "light");
  await page.setViewport(WIDE);
}

/** Presses Tab until the focus is at `last`. Each place must show the focus; the first must be the link over the header. */
async function tabTo(page, last) {
  for (let at = 0; at < 30; at += 1) {
    await page.keyboard.press("Tab");
    const { id, kind, isShown } = await page.evaluate(() => {
      const place = document.activeElement;
      const box = place.getBoundingClientRect();
      const isOutlined = getComputedStyle(place).outlineStyle !== "none";
      return { id: place.id, kind: place.className, isShown: isOutlined && box.top >= 0 && box.height > 0 };
    });
    assert.ok(at > 0 || kind === "skip", "the first place is the link over the header");
    assert.ok(isShown, `the focus is seen at ${id} ${kind}`);
    if (id === last) return;
  }
  assert.fail(`Tab does not lead to ${last}`);
}

/** Shows the sidecar's page with 50 nodes and 5,000 sessions, which are invented. */
async function showMany(browser, faults) {
  const page = await browser.newPage();
  await page.setViewport(WIDE);
  await page.evaluateOnNewDocument((value) => sessionStorage.setItem("standin.token", value), token);
  page.on("pageerror", (error) => faults.push(`${error}`));
  const states = { 7: "cooling", 19: "draining", 33: "down", 41: "unproved" };
  const nodes = Array.from({ length: 50 }, (_, at) => ({
    ...{ id: `nats-${at + 1}.example.org`, client: `10.0.${at}.1:4222`, source: "zookeeper", zone: "", weight: 1, withdrawn: false },
    ...{ state: states[at] ?? "up", cooling_ms: 350, failures: 0, sessions: states[at] ? 0 : 105 + (at % 7), last_error: null },
  }));
  await page.setRequestInterception(true);
  page.on("request", async (request) => {
    const asked = new URL(request.url()).pathname;
    if (asked === "/nodez") {
      request.respond({ contentType: "application/json", body: JSON.stringify({ total: 50, items: nodes }) });
    } else if (asked === "/varz") {
      const real = await fetch(request.url(), { headers: { Authorization: `Bearer ${token}` } });
      const body = { ...(await real.json()), sessions: 5000 };
      request.respond({ contentType: "application/json", body: JSON.stringify(body) });
    } else {
      request.continue();
    }
  });
  await page.goto(sidecarUrl);
  await shows(page, "#picture .name", "nats-50.example.org");
  await page.evaluate(axe);
  await examine(page, "many");
  const cut = await page.evaluate(() => {
    const names = [...document.querySelectorAll("#picture .up .name, #picture .value")];
    return names.filter((name) => name.scrollWidth > name.clientWidth + 1).map((name) => name.textContent);
  });
  assert.deepStrictEqual(cut, [], "names and numbers are whole");
  await page.setViewport(PHONE);
  await fits(page, "many-phone");
  await page.close();
}

async function look(browser) {
  const faults = [];
  const [sidecar, broker] = await Promise.all([sidecarUrl, brokerUrl].map((url) => open(browser, url, faults)));

  await shows(sidecar, "h2", "These pages ask for a token");
  await sidecar.evaluate(axe);
  await examine(sidecar, "token");
  await sidecar.type("#token", "wrong\n");
  await shows(sidecar, "#access-error", "refused this token");
  // A token that no request can carry is refused too, and is not kept.
  await sidecar.type("#token", "s3cr3t✓\n");
  await sidecar.reload();
  await sidecar.waitForSelector("#access:not([hidden])");
  await sidecar.type("#token", `${token}\n`);

  await shows(sidecar, "#picture .card.up .name", victim);
  await shows(sidecar, "#sessions", "?<script>window.hacked=1</script>");
  await shows(broker, "#picture .card.up .name", victim);
  await shows(broker, "#links th", victim);
  await Promise.all([sidecar, broker].map((page) => page.waitForSelector("#messages .line-0[d]")));
  await sidecar.type("#search", "GoRouter");
  await shows(sidecar, "#sessions-pager output", "1–2 of 2 sessions");
  await sidecar.evaluate(() => {
    document.getElementById("search").value = "";
  });
  await tabTo(broker, "search");
  await broker.keyboard.type("nobody");
  await shows(broker, "#clients", "No client fits.");
  await broker.$eval("#search", (field) => {
    field.value = "";
  });
  await Promise.all([examineAll(sidecar, "sidecar"), examineAll(broker, "broker"), showMany(browser, faults)]);

  console.log("shown");
  await told("killed");
  await shows(sidecar, "#moves .text", `from ${victim} to `);
  await shows(sidecar, "#picture .card.cooling .name, #picture .card.down .name", victim);
  await shows(sidecar, "#news", victim);
  await shows(broker, "#picture .card.down .name", victim);
  await shows(broker, "#events", `${victim} has lost its link`);
  await Promise.all([examine(sidecar, "sidecar-moved"), examine(broker, "broker-moved")]);

  console.log("moved");
  await told("stopped");
  await shows(sidecar, "#live", "No answer since");
  await shoot(sidecar, "sidecar-silent");
  assert.strictEqual(await sidecar.evaluate(() => window.hacked), undefined);
  assert.deepStrictEqual(faults, []);
  console.log("silent");
}

async function main() {
  const executablePath = ["chromium-headless-shell", "chromium", "chromium-shell"]
    .map((name) => `/usr/bin/${name}`)
    .find(fs.existsSync);
  assert.ok(executablePath, "no Chromium in /usr/bin: run tests/run once");
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server"];
  const browser = await puppeteer.launch({ executablePath, headless: "shell", pipe: true, args });
  try {
    await look(browser);
  } finally {
    await browser.close();
  }
}

main().then(
  () => process.exit(0),
  (error) => {
    console.log(`error ${String(error.stack ?? error).replaceAll("\n", " | ")}`);
    process.exit(1);
  },
);
