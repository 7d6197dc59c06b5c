"use strict";
// Names and texts come from strangers: they are only ever set as `textContent`, never as HTML.
const $ = id => document.getElementById(id);

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/// What the clock said so many milliseconds ago.
function clockTime(ago = 0) {
  return new Date(Date.now() - ago).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/// Milliseconds, as people say them.
function span(ms) {
  if (ms < 10_000) return (ms / 1_000).toFixed(1) + " s";
  if (ms < 120_000) return Math.round(ms / 1_000) + " s";
  if (ms < 7_200_000) return Math.round(ms / 60_000) + " min";
  return Math.round(ms / 3_600_000) + " h";
}

// ── Who ─────────────────────────────────────────────────────────────────────────────────────────
// The name is in the address, the thread in the tab's own storage: a reload is the same person in
// the same thread, a new tab begins a thread of its own unless its address names one.

// After these, a tab that comes back by itself would throw out another one, which comes back by itself.
const FOR_GOOD = {
  4001: ["taken over", "This thread was opened in a newer tab, which took this one’s place."],
  4008: ["made room", "You are close to your limit of connections, and this one made room for newer ones."],
};
const HELD_MESSAGES = 500;

let user = null;
let thread = null;

function freshThread() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return "thread_" + Array.from(bytes, byte => byte.toString(16).padStart(2, "0")).join("");
}

function join(name, wanted) {
  user = name;
  thread = wanted || freshThread();
  sessionStorage.setItem("thread", thread);
  history.replaceState(null, "", "/?" + new URLSearchParams({ user }));
  const another = "/?" + new URLSearchParams({ user, thread });
  $("user").textContent = user;
  $("thread").textContent = thread;
  $("thread").title = thread;
  $("another").href = another;
  document.title = user + " · Pool chat";
  show("chat");
  connect();
}

function leave(problem) {
  $("join").elements.user.value = user ?? "";
  $("join").elements.thread.value = problem?.startsWith("thread") ? thread : "";
  const shown = $("join").querySelector(".problem");
  shown.textContent = problem ?? "";
  shown.hidden = !problem;
  hangUp();
  user = null;
  sessionStorage.removeItem("thread");
  history.replaceState(null, "", "/");
  document.title = "Pool chat";
  clearLog();
  setState("", "");
  show("join");
}

function show(part) {
  const isChat = part === "chat";
  $("join").hidden = isChat;
  for (const id of ["chat", "leave", "another", "who"]) $(id).hidden = !isChat;
  (isChat ? $("text") : $("join").elements.user).focus();
}

$("join").addEventListener("submit", event => {
  event.preventDefault();
  const { user, thread } = event.target.elements;
  join(user.value, thread.value.trim());
});
$("leave").addEventListener("click", () => leave());

// ── The connection ──────────────────────────────────────────────────────────────────────────────

let socket = null;
let attempts = 0;
let openedAt = 0;
let retry = null; // { timer, at } while the next attempt is being waited for
let awaited = []; // texts of this tab that the server has not sent back yet

/// With the last event of the thread that this tab saw: the server hands it those that it missed.
function path() {
  const after = sessionStorage.getItem("after " + thread);
  return "/ws?user=" + encodeURIComponent(user) + "&thread=" + encodeURIComponent(thread)
    + (after ? "&after=" + encodeURIComponent(after) : "");
}

function connect() {
  hangUp();
  setState("connecting…", "warn");
  const mine = new WebSocket(location.origin.replace(/^http/, "ws") + path());
  let wasOpen = false;
  socket = mine;
  mine.onopen = () => {
    if (socket !== mine) return;
    wasOpen = true;
    openedAt = Date.now();
    notify(null);
    setState("connected", "good");
  };
  mine.onmessage = event => { if (socket === mine) receive(event.data); };
  mine.onclose = event => {
    if (socket !== mine) return;
    socket = null;
    awaited = [];
    if (wasOpen) closed(event); else refused();
  };
}

/// Ends the connection and any wait for the next one.
function hangUp() {
  clearTimeout(retry?.timer);
  retry = null;
  const old = socket;
  socket = null;
  old?.close(1000);
}

async function closed({ code, reason }) {
  const opened = openedAt;
  // A connection that held for a while was a success: begin again with short delays.
  if (Date.now() - opened > 5_000) attempts = 0;
  const heard = `${reason || (code === 1006 ? "connection lost" : "connection closed")} (${code})`;
  const row = addEvent(heard);
  if (code in FOR_GOOD) {
    const [state, why] = FOR_GOOD[code];
    setState(state, "bad");
    notify(why, "Take it back", connect);
  } else {
    retryLater(0, heard);
  }
  const waiting = retry;
  const end = await ownEnd(code, opened);
  if (!end) return;
  const told = `${end.text} (${end.close_code})`;
  row.textContent = `${told} · ${clockTime(end.ended_ms_ago)} · after ${span(end.age_ms)}`; // stays
  const ago = end.ended_ms_ago < 1_000 ? "just now" : span(end.ended_ms_ago) + " ago";
  if (waiting && retry === waiting) $("notice").firstElementChild.textContent = sentence(`${told}, ${ago}`);
}

/// How the server remembers the end of this tab's connection, which it may not have noticed yet. Known
/// by its thread and by when it began: there may be other tabs on the thread.
async function ownEnd(code, opened) {
  const ownThread = thread;
  const why = await askWhy();
  const openFor = Date.now() - opened;
  const own = why?.last_ends.filter(({ thread_id, ended_ms_ago, age_ms }) =>
    thread_id === ownThread && Math.abs(ended_ms_ago + age_ms - openFor) < 2_000) ?? [];
  return own.find(end => end.close_code === code) ?? own[0];
}

/// How full this user is, and how the last connections ended. `null`: no answer.
async function askWhy() {
  try {
    const answer = await fetch("/why?user=" + encodeURIComponent(user), { cache: "no-store", signal: AbortSignal.timeout(5_000) });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null;
  }
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + ".";
}

/// A WebSocket that fails to open hides the server's answer. The same address, fetched plainly,
/// gives it: the reason of the refusal, or 426 if there is none (any more).
async function refused() {
  const asked = path();
  let status = 0, text = "the server does not answer", after = 0;
  try {
    const answer = await fetch(asked, { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    status = answer.status;
    after = Number(answer.headers.get("Retry-After")) || 0;
    text = status === 426 ? "the connection failed" : (await answer.text()).trim();
  } catch { /* unreachable: that is what the text says already */ }
  if (user === null || socket || asked !== path()) return; // moved on meanwhile
  if (status === 400) leave(text); else retryLater(after, text);
}

function retryLater(seconds, why) {
  const growing = Math.min(500 * 2 ** attempts++, 30_000) * (0.75 + Math.random() / 2);
  const delay = Math.max(growing, seconds * 1_000);
  retry = { timer: setTimeout(connect, delay), at: Date.now() + delay };
  notify(sentence(why), "Try now", connect);
  showRetry();
}

function showRetry() {
  if (retry) setState(`next try in ${Math.max(1, Math.ceil((retry.at - Date.now()) / 1_000))} s`, "bad");
}

function setState(text, kind) {
  if ($("state").textContent !== text) $("state").textContent = text;
  $("state").className = "badge " + kind;
  $("state").hidden = text === "";
  $("state").ariaLive = retry ? "off" : "polite"; // nobody wants a countdown read out
  $("send").disabled = kind !== "good";
}

function notify(text, action, act) {
  $("notice").hidden = text === null;
  if (text === null) return;
  const [words, button] = $("notice").children;
  words.textContent = text;
  button.textContent = action;
  button.onclick = act;
}

addEventListener("online", () => { if (retry) connect(); });

// ── Messages ────────────────────────────────────────────────────────────────────────────────────

let last = ""; // whose message stands last, so that a row of them has one head

function receive(data) {
  const told = JSON.parse(data);
  const { from, text, error } = told;
  if (error !== undefined) return addEvent(error, "bad");
  if (told.type !== undefined) return addStep(told);
  if (from !== user) return addMessage(from, text, "to you", "private");
  const at = awaited.indexOf(text);
  awaited.splice(0, at + 1);
  addMessage(from, text, at < 0 ? "another tab" : "", at < 0 ? "" : "mine");
}

function send() {
  const text = $("text").value.trim();
  const to = $("to").value;
  if (text === "" || socket?.readyState !== WebSocket.OPEN) return;
  if (to === "" && text.startsWith("/ask ")) {
    socket.send(JSON.stringify({ ask: text.slice(5).trim() }));
  } else if (to === "") {
    awaited.push(text);
    socket.send(text);
  } else {
    socket.send(JSON.stringify({ to, text }));
    addMessage(user, text, "to " + to, "mine private");
  }
  $("text").value = "";
}

const STEPS = {
  agent_started: "asked",
  agent_thinking: "thinks",
  tool_executing: "uses a tool",
  tool_completed: "tool done",
  agent_completed: "answers",
};

/// A step of an agent on this thread, or what it says where some are missing.
function addStep({ type, id, seq, from, to, data, outcome }) {
  sessionStorage.setItem("after " + thread, id);
  if (type === "gap") {
    const which = from === null ? "Some" : from === to ? "One" : `${to - from + 1}`;
    return addEvent(`${which} of the agent’s steps can’t be shown any more`, "bad");
  }
  const words = data === undefined ? "" : typeof data === "string" ? data : JSON.stringify(data);
  const said = outcome === "aborted" ? "gave up" : STEPS[type] ?? type;
  const kind = type === "agent_completed" ? "step done" : "step";
  const row = addEvent("", kind);
  row.append(element("span", "number", seq), element("b", "", `agent ${said}`), " ", element("bdi", "", words));
}

function addMessage(from, text, note, kind) {
  const message = element("div", "message " + kind);
  const head = element("div", "head");
  head.append(element("bdi", "", from), note && " · ", element("bdi", "", note), " · " + clockTime());
  const body = element("div", "text", text);
  body.dir = "auto";
  message.append(head, body);
  const whose = JSON.stringify([from, note]);
  message.classList.toggle("more", whose === last);
  add(message);
  last = whose;
}

function addEvent(text, kind = "") {
  last = "";
  return add(element("div", "event " + kind, text));
}

function add(row) {
  const log = $("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  $("empty").hidden = true;
  log.append(row);
  while (log.children.length > HELD_MESSAGES) log.children[1].remove(); // 0 is `#empty`
  if (isAtEnd) log.scrollTop = log.scrollHeight;
  return row;
}

function clearLog() {
  $("log").replaceChildren($("empty"));
  $("empty").hidden = false;
  last = "";
}

$("compose").addEventListener("submit", event => { event.preventDefault(); send(); });
$("text").addEventListener("keydown", event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});

// ── The pool's figures ──────────────────────────────────────────────────────────────────────────

const KINDS = { balanced: "good", busy: "warn", unbalanced: "bad" };
const LEVEL_KINDS = { normal: "good", info: "", warning: "warn", critical: "bad", emergency: "bad" };
let trace = []; // `live` of the last minute
let isAsking = false;

async function askPool() {
  if (isAsking || document.hidden) return;
  isAsking = true;
  try {
    const own = user === null ? null : askWhy();
    const answer = await fetch("/pool", { cache: "no-store", signal: AbortSignal.timeout(5_000) });
    showPool(await answer.json());
    showOwnLevel(await own);
  } catch {
    setVerdict("no answer", "bad");
    $("pool").classList.add("stale");
  } finally {
    isAsking = false;
  }
}

function showPool(figures) {
  const { live, users, capacity, refused, ledger, managers, maintenance, delivery, agents } = figures;
  $("pool").classList.remove("stale");
  $("live").textContent = live.toLocaleString();
  $("users").textContent = users.toLocaleString();
  $("capacity").textContent = capacity.toLocaleString();
  $("short").textContent = `${live.toLocaleString()} live of ${capacity.toLocaleString()}`;
  for (const figure of $("ledger").querySelectorAll("[data-of]")) {
    figure.textContent = ledger[figure.dataset.of].toLocaleString();
  }
  for (const figure of $("delivery").querySelectorAll("[data-of]")) {
    figure.textContent = delivery[figure.dataset.of].toLocaleString();
  }
  $("outbound").textContent = figures.outbound_bytes.toLocaleString();
  $("runs").textContent = agents.runs.toLocaleString();
  $("replay").textContent = agents.replay_bytes.toLocaleString();
  $("refused").textContent = Object.values(refused).reduce((sum, count) => sum + count, 0).toLocaleString();
  $("maintenance").textContent = span(maintenance.last_ms_ago) + " ago";
  $("maintenance").className = maintenance.is_forgotten ? "bad" : "";
  setVerdict(ledger.verdict, KINDS[ledger.verdict] ?? "");
  showKernel(figures);
  showTrace(live);
  showSuspects(figures.suspects);
  setLevel($("pool-level"), figures.level);
  showLevels(figures.users_by_level);
  showPeople(managers);
  showEnds(figures.last_ends);
  showCleanups(figures.cleanups);
}

function setVerdict(text, kind) {
  $("verdict").textContent = text;
  $("verdict").className = "badge " + kind;
  $("verdict").title = "The ledger: do leases, users’ counts, slots and isolation keys agree?";
}

/// A socket may outlive its lease, while goodbye is said on it. A lease that outlives its socket leaked.
function showKernel({ live, kernel_sockets: sockets, kernel_agrees: agrees, kernel_sockets_note: note }) {
  $("kernel").textContent = sockets?.toLocaleString() ?? "unknown";
  $("kernel").className = agrees === null ? "" : agrees ? "good" : sockets < live ? "bad" : "warn";
  $("kernel-note").textContent = note ? `Kernel’s sockets: ${note}.` : "";
  $("kernel-note").hidden = !note;
}

function showTrace(live) {
  trace = [...trace, live].slice(-60);
  const top = Math.max(4, ...trace) * 1.15;
  const first = 60 - trace.length;
  const y = count => (20 - count / top * 20).toFixed(2);
  const steps = trace.map((count, at) => `L${first + at} ${y(trace[at - 1] ?? count)}V${y(count)}`);
  $("trace").firstElementChild.setAttribute("d", `M${first} 20${steps.join("")}V20Z`);
}

/// Everybody who is here, as a click away from being written to.
function showPeople(managers) {
  const tabs = new Map();
  for (const { user_id } of managers) tabs.set(user_id, (tabs.get(user_id) ?? 0) + 1);
  const names = JSON.stringify([...tabs, user]);
  if ($("people").dataset.names === names) return; // keeps the focus where it is
  $("people").dataset.names = names;
  $("people").replaceChildren(...[...tabs].map(([name, count]) => {
    const button = element("button", "");
    button.append(element("bdi", "", name), count > 1 ? ` × ${count}` : "");
    button.title = name === user ? "you" : `write to ${name}`;
    button.disabled = name === user || user === null;
    button.addEventListener("click", () => { $("to").value = name; $("text").focus(); });
    const item = element("li", "");
    item.append(button);
    return item;
  }));
  $("names").replaceChildren(...[...tabs.keys()].filter(name => name !== user).map(name => {
    const option = element("option", "");
    option.value = name;
    return option;
  }));
}

function setLevel(badge, level) {
  badge.textContent = level;
  badge.className = "badge " + (LEVEL_KINDS[level] ?? "");
}

function showOwnLevel(check) {
  const isKnown = check !== null && check.user_id === user;
  $("own-count").hidden = $("own").hidden = !isKnown;
  if (!isKnown) return;
  $("own-count").textContent = `you, with ${check.manager_count} of ${check.max_managers}`;
  setLevel($("own-level"), check.alert_level);
}

function showLevels(users) {
  const held = Object.entries(users).filter(([, count]) => count > 0);
  const part = (name, level, text) => {
    const made = element(name, "", text);
    made.style.setProperty("--level", `var(--${level})`);
    return made;
  };
  $("levels").replaceChildren(...held.map(([level, count]) => {
    const bar = part("i", level);
    bar.style.flexGrow = count;
    return bar;
  }));
  const words = held.map(([level, count]) => [level, `${count.toLocaleString()} ${level}`]);
  $("levels").ariaLabel = "Users by level: " + (words.map(([, text]) => text).join(", ") || "nobody");
  $("legend").replaceChildren(...words.map(([level, text]) => part("li", level, text)));
}

function showSuspects(suspects) {
  $("suspicion").hidden = suspects.length === 0;
  $("suspects").replaceChildren(...suspects.slice(0, 5).map(({ suspicion, silent_ms, manager }) => {
    const item = element("li", "");
    const what = suspicion === "silent" ? `silent for ${span(silent_ms)}` : `open for ${span(manager.age_ms)}`;
    item.append(element("bdi", "", manager.user_id), ` · ${what} · ${manager.made_at}`);
    return item;
  }), ...suspects.slice(5, 6).map(() => element("li", "", `and ${suspects.length - 5} more`)));
}

function showEnds(ends) {
  $("ends").replaceChildren(...ends.map(end => {
    const item = element("li", "");
    const ago = span(end.ended_ms_ago) + " ago";
    item.append(
      element("bdi", "", end.user_id),
      element("span", "", `${end.reason.replaceAll("_", " ")} ${end.close_code}`),
      element("span", "soft", ago),
    );
    item.title = `${end.text}, ${ago}, after ${span(end.age_ms)}, on ${end.thread_id}, made at ${end.made_at}`;
    return item;
  }));
  if (ends.length === 0) $("ends").append(element("li", "", "none so far"));
}

function showCleanups(cleanups) {
  $("cleanups").tBodies[0].replaceChildren(...cleanups.map(({ operation, runs, attempts, successes, success_ratio, longest_us }) => {
    const success = attempts === 0 ? "–" : Math.floor(success_ratio * 100) + " %";
    const longest = runs === 0 ? "–" : longest_us < 1_000 ? longest_us + " µs" : Math.round(longest_us / 1_000) + " ms";
    const row = element("tr", "");
    row.append(...[operation, runs.toLocaleString(), successes.toLocaleString(), success, longest].map(text => element("td", "", text)));
    if (success_ratio < 0.9) row.children[3].className = "bad";
    return row;
  }));
}

// ── Begin ───────────────────────────────────────────────────────────────────────────────────────

const narrow = matchMedia("(max-width: 47.5rem)");
const fold = () => { $("pool").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();

const asked = new URLSearchParams(location.search);
if (asked.has("user")) join(asked.get("user"), asked.get("thread") ?? sessionStorage.getItem("thread"));
else leave();

askPool();
setInterval(() => { askPool(); showRetry(); }, 1_000);
