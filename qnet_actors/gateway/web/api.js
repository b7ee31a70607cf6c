// Calls of the API of the gateway that served this page.

const BASE = "/api/v1";
const TIMEOUT_MS = 8_000;

let clockAheadMs = 0;

/** Why a call gave nothing: a refusal with its stable code, or `offline` where nobody answered. */
export class ApiError extends Error {
  constructor(code, message, status = 0, retryAfterMs = 0) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Now by the gateway's clock, in ms; ages are shown by it, whatever the reader's clock says. */
export function gatewayNow() {
  return Date.now() + clockAheadMs;
}

function learnClock(header) {
  const told = Date.parse(header ?? "");
  if (Number.isNaN(told)) return;
  const aheadMs = told - Date.now();
  // The header has whole seconds, so small differences mean nothing.
  clockAheadMs = Math.abs(aheadMs) > 2_000 ? aheadMs : 0;
}

/** The JSON answer of a GET below /api/v1; throws `ApiError`. */
export async function get(path) {
  let response;
  let body;
  try {
    response = await fetch(BASE + path, {
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(TIMEOUT_MS),
      credentials: "omit",
    });
    learnClock(response.headers.get("date"));
    body = await response.json();
  } catch {
    throw new ApiError("offline", "The gateway does not answer.");
  }
  if (!response.ok) {
    const retryAfterMs = 1000 * (Number(response.headers.get("retry-after")) || 0);
    const said = [body.title, body.detail].filter((text) => typeof text === "string" && text);
    const message = [...new Set(said)].join(" ") || `HTTP ${response.status}`;
    throw new ApiError(String(body.code ?? "unknown"), message, response.status, retryAfterMs);
  }
  return body;
}

export const status = () => get("/status");
export const validators = () => get("/validators");
export const blocks = (limit, cursor) =>
  get(`/blocks?limit=${limit}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`);
export const block = (id) => get(`/blocks/${encodeURIComponent(id)}`);
export const blockTransactions = (id, offset, limit) =>
  get(`/blocks/${encodeURIComponent(id)}?transactions=true&offset=${offset}&limit=${limit}`);
export const transaction = (id) => get(`/tx/${encodeURIComponent(id)}`);
export const account = (id) => get(`/accounts/${encodeURIComponent(id)}`);
export const accountTransactions = (id, cursor) =>
  get(
    `/accounts/${encodeURIComponent(id)}/transactions` +
      (cursor ? `?cursor=${encodeURIComponent(cursor)}` : ""),
  );
export const nextNonce = (id) => get(`/accounts/${encodeURIComponent(id)}/next-nonce`);

export function socket() {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(`${scheme}//${location.host}${BASE}/ws`);
}
