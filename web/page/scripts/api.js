/**
 * The API of this server: one way to ask it, one kind of error for all that can go wrong.
 *
 * The key is kept in this object alone, in memory: it is gone when the page is closed or loaded again. When the server
 * does not take it (any more), the request waits until somebody has signed in, and is then made again.
 */

/** What the server refused, in its own words: `code` and `detail` as in the API's problems. */
export class Problem extends Error {
  constructor(status, code, detail, retryAfterS = null) {
    super(detail);
    Object.assign(this, { status, code, detail, retryAfterS });
  }
}

/** Nothing came back, or the answer broke off. */
export class Unreachable extends Error {
  constructor() {
    super("The server cannot be reached.");
    Object.assign(this, { code: "unreachable", detail: "The server cannot be reached." });
  }
}

/** Paths are relative to the page's own address, which may lie below a path of a proxy. */
function address(path) {
  return new URL(path.replace(/^\//, ""), document.baseURI).href;
}

class Api extends EventTarget {
  #key = null;
  #signingIn = null;
  /** Set by sign_in.js: asks for a key, given the server's refusal; resolves once there is one. */
  askForKey = null;

  /** Headers that say who asks. */
  get headers() {
    return this.#key ? { Authorization: `Bearer ${this.#key}` } : {};
  }

  get signedIn() {
    return this.#key !== null;
  }

  signIn(key) {
    this.#key = key;
    this.dispatchEvent(new Event("signed-in"));
  }

  signOut() {
    this.#key = null;
  }

  get(path, options = {}) {
    return this.json("GET", path, options);
  }

  /** What the answer holds, null without a body. */
  async json(method, path, options = {}) {
    const response = await this.request(method, path, options);
    const text = await this.#unbroken(response.text());
    return text ? JSON.parse(text) : null;
  }

  async blob(path, options = {}) {
    const response = await this.request("GET", path, options);
    return this.#unbroken(response.blob());
  }

  /**
   * The server-sent events of an answer: `{name, data, id}`. `opened` is given the response before the first.
   * Throws Unreachable when the stream ends without its last event, whose names are `lastNames`.
   */
  async *events(method, path, { lastNames, opened = () => {}, ...options }) {
    const response = await this.request(method, path, options);
    opened(response);
    for await (const event of this.#read(response.body)) {
      yield event;
      if (lastNames.includes(event.name)) return;
    }
    throw this.#lost();
  }

  /** A response whose status is good; `body` is sent as JSON. */
  async request(method, path, { body, signal, headers = {} } = {}) {
    for (;;) {
      const response = await this.#fetch(path, {
        method,
        signal,
        headers: { ...headers, ...this.headers, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
        body: body === undefined ? undefined : JSON.stringify(body),
      });
      if (response.ok) return response;
      const problem = await problemOf(response);
      if (problem.status !== 401) throw problem;
      await this.keyNeeded(problem);
    }
  }

  /** Send files as one slide. `progress(share)` is told how much of it is sent; answers with the slide. */
  async upload(files, progress, signal) {
    for (;;) {
      const form = new FormData();
      for (const { file, name } of files) form.append("file", file, name);
      const { status, text, retryAfter } = await this.#send(form, progress, signal);
      if (status < 300) return JSON.parse(text);
      const problem = problemIn(status, text, retryAfter);
      if (problem.status !== 401) throw problem;
      await this.keyNeeded(problem);
    }
  }

  /** Everybody who was refused waits for the same sign-in. */
  async keyNeeded(problem) {
    this.#signingIn ??= this.askForKey(problem).finally(() => {
      this.#signingIn = null;
    });
    await this.#signingIn;
  }

  async #fetch(path, options) {
    let response;
    try {
      response = await fetch(address(path), { ...options, credentials: "omit" });
    } catch (error) {
      throw options.signal?.aborted ? error : this.#lost();
    }
    this.dispatchEvent(new Event("reached"));
    return response;
  }

  /** fetch does not tell how much of a body is sent. */
  #send(form, progress, signal) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", address("/v1/slides"));
      for (const [name, value] of Object.entries(this.headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => progress(event.total ? event.loaded / event.total : 0);
      request.onload = () => {
        this.dispatchEvent(new Event("reached"));
        const retryAfter = request.getResponseHeader("Retry-After");
        resolve({ status: request.status, text: request.responseText, retryAfter });
      };
      request.onerror = () => reject(this.#lost());
      request.onabort = () => reject(new DOMException("Stopped.", "AbortError"));
      signal?.addEventListener("abort", () => request.abort());
      request.send(form);
    });
  }

  async *#read(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await this.#unbroken(reader.read());
      if (done) return;
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      for (const block of blocks) {
        const event = eventIn(block);
        if (event) yield event;
      }
    }
  }

  async #unbroken(reading) {
    try {
      return await reading;
    } catch (error) {
      throw error.name === "AbortError" ? error : this.#lost();
    }
  }

  #lost() {
    this.dispatchEvent(new Event("lost"));
    return new Unreachable();
  }
}

export const api = new Api();

async function problemOf(response) {
  return problemIn(response.status, await response.text().catch(() => ""), response.headers.get("Retry-After"));
}

/** Problems of the API, of its OpenAI dialect, and answers of a proxy that are neither. */
function problemIn(status, text, retryAfter) {
  let said = {};
  try {
    said = JSON.parse(text);
  } catch {
    // A proxy's page; it says nothing that people could use.
  }
  const { code = "unavailable", detail, message } = said.error ?? said;
  const words = detail ?? message ?? `The server answered with status ${status}; try again shortly.`;
  return new Problem(status, code, words, retryAfter ? Number(retryAfter) : null);
}

/** An event of a stream, null for what only keeps it open. */
function eventIn(block) {
  const fields = {};
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
  }
  return fields.data === undefined ? null : { name: fields.event, data: JSON.parse(fields.data), id: fields.id };
}
