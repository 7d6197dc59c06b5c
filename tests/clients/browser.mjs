// Chromium, driven by lines of JSON: its own WebSocket by the commands of driver.rs, and the chat page
// as a person uses it. The browser's path is the argument.
import { answer, packages } from "./answering.mjs";

const { chromium } = packages("playwright-core");
const browser = await chromium.launch({
  executablePath: process.argv[2],
  args: [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
// Its sessions are those of one person's browser: tabs share nothing but that.
const context = await browser.newContext();
context.setDefaultTimeout(60_000);
const tabs = {};

// ── Its WebSocket, from a page of the server's own origin ───────────────────────────────────────

async function open({ name, url }) {
  const tab = tabs[name] = await context.newPage();
  await tab.goto(new URL("/pool", url.replace(/^ws/, "http")).href); // a page that has no socket of its own
  return tab.evaluate(url => new Promise(resolve => {
    const socket = new WebSocket(url);
    const arrived = [], asking = [];
    const put = message => asking.length > 0 ? asking.shift()(message) : arrived.push(message);
    const next = () => arrived.length > 0 ? arrived.shift() : new Promise(resolve => asking.push(resolve));
    Object.assign(window, { socket, next });
    socket.onmessage = ({ data }) => put({ text: data });
    socket.onopen = () => resolve({ opened: true });
    socket.onclose = ({ code, reason }) => {
      put({ closed: { code, reason } });
      resolve({ refused: null, retry_after: null, body: null }); // a page is not told why
    };
  }), url);
}

async function text({ name, pieces: [piece], repeat }) {
  const payload = Buffer.from(piece).toString();
  await tabs[name].evaluate(([payload, repeat]) => socket.send(payload.repeat(repeat)), [payload, repeat]);
  return { sent: true };
}

async function binary({ name, payload }) {
  await tabs[name].evaluate(payload => socket.send(Uint8Array.from(payload)), payload);
  return { sent: true };
}

function next({ name }) {
  return tabs[name].evaluate(() => next());
}

function close({ name, code, reason }) {
  return tabs[name].evaluate(async ([code, reason]) => {
    socket.close(code, reason);
    for (;;) {
      const message = await next();
      if (message.closed) return message;
    }
  }, [code, reason]);
}

async function lose({ name }) {
  await tabs[name].close();
  return { lost: true };
}

// ── A page, as a person sees and uses it ────────────────────────────────────────────────────────

async function visit({ tab, url }) {
  tabs[tab] ??= await context.newPage();
  await tabs[tab].goto(url);
  return { visited: true };
}

async function fill({ tab, into, text }) {
  await tabs[tab].locator(into).fill(text);
  return { filled: true };
}

async function click({ tab, on }) {
  await tabs[tab].locator(on).click();
  return { clicked: true };
}

async function press({ tab, key }) {
  await tabs[tab].keyboard.press(key);
  return { pressed: true };
}

/// Waits until the text is seen, and returns all that is written there.
async function see({ tab, where, text }) {
  const found = tabs[tab].locator(where).filter({ hasText: text, visible: true }).first();
  await found.waitFor();
  return { seen: await found.innerText() };
}

async function reload({ tab }) {
  await tabs[tab].reload();
  return { reloaded: true };
}

await answer({ open, text, binary, next, close, lose, visit, fill, click, press, see, reload });
await browser.close();
