// Node's `ws`, driven by lines of JSON: see driver.rs for the commands.
import { once } from "node:events";
import { Inbox, answer, packages } from "./answering.mjs";

const { WebSocket } = packages("ws");
const sockets = {};
const inboxes = {};

function open({ name, url }) {
  const socket = new WebSocket(url);
  const inbox = new Inbox();
  sockets[name] = socket;
  inboxes[name] = inbox;
  socket.on("message", (data, isBinary) => inbox.put(isBinary ? { binary: [...data] } : { text: data.toString() }));
  socket.on("close", (code, reason) => inbox.put({ closed: { code, reason: reason.toString() } }));
  return new Promise((resolve, reject) => {
    socket.on("open", () => resolve({ opened: true }));
    socket.on("error", reject); // after the opening it tells `close` as well
    socket.on("unexpected-response", async (_, response) => {
      let body = "";
      for await (const chunk of response) body += chunk;
      resolve({ refused: response.statusCode, retry_after: response.headers["retry-after"] ?? null, body });
    });
  });
}

async function text({ name, pieces, repeat }) {
  for (const [at, piece] of pieces.entries()) {
    const payload = Buffer.concat(Array(repeat).fill(Buffer.from(piece)));
    sockets[name].send(payload, { binary: false, fin: at === pieces.length - 1 });
  }
  return { sent: true };
}

function binary({ name, payload }) {
  sockets[name].send(Buffer.from(payload));
  return { sent: true };
}

async function ping({ name, payload }) {
  const answered = once(sockets[name], "pong");
  sockets[name].ping(payload);
  const [data] = await answered;
  return { pong: data.toString() === payload };
}

function next({ name }) {
  return inboxes[name].next();
}

async function close({ name, code, reason }) {
  sockets[name].close(code, reason);
  for (;;) {
    const message = await inboxes[name].next();
    if (message.closed) return message;
  }
}

function lose({ name }) {
  sockets[name].terminate();
  return { lost: true };
}

await answer({ open, text, binary, ping, next, close, lose });
