// What both Node scripts share: a command on each line of stdin, its answer on a line of stdout.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

// The packages are in the folder that the script is run in: see .ci/clients.
export const packages = createRequire(process.cwd() + "/");

export async function answer(commands) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: name, ...rest } = JSON.parse(line);
    process.stdout.write(JSON.stringify(await commands[name](rest)) + "\n");
  }
}

/// What arrives, in order, for whoever asks for it now or later.
export class Inbox {
  #arrived = [];
  #asking = [];

  put(message) {
    const ask = this.#asking.shift();
    if (ask) ask(message); else this.#arrived.push(message);
  }

  next() {
    if (this.#arrived.length > 0) return this.#arrived.shift();
    return new Promise(resolve => this.#asking.push(resolve));
  }
}
