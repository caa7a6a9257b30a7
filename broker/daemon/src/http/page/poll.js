// Reads the pages of the program once a second, and says so when it does not answer or asks for a token.

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 5000;
/** Key of the token in the session storage of the browser, which forgets it when the tab is closed. */
const TOKEN = "standin.token";

const element = (id) => document.getElementById(id);

class TokenNeeded extends Error {}

/** Returns a page of the program as JSON. */
export async function read(path) {
  const token = sessionStorage.getItem(TOKEN);
  // Other characters are in no token, and the browser would refuse to send most of them.
  if (token && !/^[!-~]+$/.test(token)) throw new TokenNeeded();
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(path, { headers, signal, cache: "no-store", credentials: "omit" });
  if (response.status === 401) throw new TokenNeeded();
  if (!response.ok) throw new Error(`${path} answered ${response.status}`);
  return response.json();
}

/** Sets the text of an element, unless it has it already: a screen reader says each change of a live region. */
export function say(id, text) {
  const target = element(id);
  if (target.textContent !== text) target.textContent = text;
}

/** Returns a path with these parameters; empty ones are left out. */
export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "");
  return `${path}?${new URLSearchParams(given)}`;
}

function show(state, text) {
  document.body.dataset.state = state;
  say("live", text);
}

function askForToken() {
  const was = sessionStorage.getItem(TOKEN);
  sessionStorage.removeItem(TOKEN);
  const form = element("access");
  show("locked", "Locked");
  element("content").hidden = true;
  say("access-error", was ? "The program refused this token." : "");
  if (form.hidden) {
    form.hidden = false;
    element("token").focus();
  }
}

/** Calls `update` at once and then every second, but not while the page is hidden. `update` reads what it needs and shows it. */
export function start(update) {
  let timer;
  let isRunning = false;
  let silentSince = 0;

  async function turn() {
    if (isRunning) return;
    clearTimeout(timer);
    if (document.hidden) {
      show("paused", "Paused while hidden");
      return;
    }
    isRunning = true;
    const begun = Date.now();
    try {
      await update();
      silentSince = 0;
      element("content").hidden = false;
      if (!element("access").hidden) {
        element("access").hidden = true;
        element("main").focus();
      }
      show("live", "Live");
    } catch (error) {
      if (error instanceof TokenNeeded) {
        askForToken();
        return;
      }
      silentSince ||= begun;
      show("silent", `No answer since ${new Date(silentSince).toLocaleTimeString("en-GB")}, retrying`);
      console.warn(error);
    } finally {
      isRunning = false;
    }
    timer = setTimeout(turn, Math.max(0, INTERVAL_MS - (Date.now() - begun)));
  }

  document.addEventListener("visibilitychange", turn);
  element("access").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = element("token");
    sessionStorage.setItem(TOKEN, field.value.trim());
    field.value = "";
    turn();
  });
  say("address", location.host);
  turn();
}
