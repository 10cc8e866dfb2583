// Calls to the server: JSON in, JSON or files out, and progress line by line.

let session = null;

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export function useSession(id) {
  session = id;
}

function headers(extra = {}) {
  return session ? { "X-Session": session, ...extra } : extra;
}

async function checked(response) {
  if (response.ok) return response;
  let text = `The server answered ${response.status}.`;
  try {
    text = (await response.json()).error || text;
  } catch {
    // The answer has no JSON: the status must do.
  }
  throw new ServerError(text, response.status);
}

export async function post(path, data, signal) {
  const response = await fetch(path, {
    method: "POST", signal, headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(data),
  });
  return (await checked(response)).json();
}

export async function postForFile(path, data) {
  const response = await fetch(path, {
    method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(data),
  });
  return (await checked(response)).blob();
}

// Long work answers in lines of JSON; `onLine` gets each of them.
export async function stream(path, body, type, onLine, signal) {
  const response = await checked(
    await fetch(path, { method: "POST", signal, headers: headers({ "Content-Type": type }), body }),
  );
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line) continue;
      const found = JSON.parse(line);
      if (found.error) throw new ServerError(found.error, 400);
      onLine(found);
    }
  }
}

export function bytes(text) {
  const characters = atob(text);
  const found = new Uint8Array(characters.length);
  for (let i = 0; i < characters.length; i++) found[i] = characters.charCodeAt(i);
  return found;
}
