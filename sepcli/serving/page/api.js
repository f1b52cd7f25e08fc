// The server's addresses; every request bears the token, where there is one.

let token = sessionStorage.getItem("token");

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function useToken(value) {
  token = value;
  sessionStorage.setItem("token", value);
}

export async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const said = await response.json().catch(() => ({}));
  const later = response.headers.get("Retry-After");
  const line = said.error ?? `the server answered ${response.status}`;
  throw new Refused(response.status, later ? `${line} (in ${later} s)` : line);
}

export const models = async () => (await ask("/models")).json();

export async function begin(kind, form) {
  const headers = { Prefer: "respond-async" };
  return (await ask(`/${kind}`, { method: "POST", body: form, headers })).json();
}

// Calls `tell` with the state of a job at every change; returns the last one.
export async function follow(job, tell, signal) {
  const response = await ask(job.links.events, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return job;
    const events = (text + value).split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (data) tell((job = JSON.parse(data.slice(6))));
    }
  }
}

export const remove = (job) => ask(job.links.self, { method: "DELETE" });

export const bytes = async (url) => (await ask(url)).arrayBuffer();

export const blobUrl = async (url) => URL.createObjectURL(await (await ask(url)).blob());

export async function save(url, name, headers = {}) {
  const made = URL.createObjectURL(await (await ask(url, { headers })).blob());
  const link = Object.assign(document.createElement("a"), { href: made, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(made), 60_000);
}

export function openStream(parameters) {
  const address = new URL("/stream", location.href.replace(/^http/, "ws"));
  address.search = new URLSearchParams(parameters);
  const protocols = ["sepcli"];
  if (token) {
    const text = btoa(token).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    protocols.push(`bearer.${text}`);
  }
  const socket = new WebSocket(address, protocols);
  socket.binaryType = "arraybuffer";
  return socket;
}
