// What the network does: by WebSocket where it stands, by polling where it does not.

import * as api from "./api.js";

export const WINDOW_S = 120;
const BLOCKS_MAX = 5_000;
const PAGE = 100;
const FIRST_PAGES_MAX = 5;
const TRANSACTIONS_MAX = 20;
const TRANSACTION_BLOCKS_MAX = 4;
const POLL_MS = 2_000;
const STATUS_MS = 3_000;
const TRANSACTIONS_MS = 1_500;
const RETRY_FIRST_MS = 1_000;
const RETRY_LAST_MS = 30_000;

/** The newest blocks, transactions, status and committee; `changed` is called when any moves. */
export class Feed {
  constructor(changed) {
    this.status = null;
    this.validators = null;
    this.blocks = [];
    this.transactions = [];
    this.loaded = false;
    /** When the gateway last told something, by its own clock; null before. */
    this.heardMs = null;
    this.finalHeight = 0n;
    this._changed = changed;
    this._byHeight = new Map();
    this._shown = new Map();
    this._retryMs = RETRY_FIRST_MS;
    this._waitUntil = 0;
    this._open = false;
    this._troubles = new Map();
    this._refreshing = false;
    this._stale = true;
  }

  async start() {
    this._connect();
    this._every(STATUS_MS, () => this._readStatus());
    this._every(POLL_MS, async () => {
      if (this._stale || this.mode !== "live") await this._readBlocks();
    });
    this._every(TRANSACTIONS_MS, () => this._readTransactions());
  }

  /** The height of the newest block that was heard of; null before. */
  get height() {
    return this.blocks.length ? this.blocks[0].header.height : (this.status?.height ?? null);
  }

  /** What goes wrong now, as an error; null where nothing does. */
  get trouble() {
    return this._troubles.values().next().value ?? null;
  }

  /** connecting, live, polling or offline. */
  get mode() {
    for (const error of this._troubles.values()) if (error.code === "offline") return "offline";
    if (this._open) return "live";
    return this.heardMs === null ? "connecting" : "polling";
  }

  isFinal(height) {
    return BigInt(height) <= this.finalHeight;
  }

  /**
   * Transactions of each of the last `WINDOW_S` whole seconds by block time, oldest first; null
   * for seconds that are older than the blocks that were read.
   */
  perSecond() {
    const last = Math.floor(api.gatewayNow() / 1000) - 1;
    const place = (header) => WINDOW_S - 1 - (last - Math.floor(header.timestamp_ms / 1000));
    const oldest = this.blocks.at(-1)?.header;
    let known = this.loaded ? 0 : WINDOW_S;
    if (oldest) known = oldest.height === "1" ? 0 : place(oldest) + 1;
    const counts = Array.from({ length: WINDOW_S }, (_, at) => (at < known ? null : 0));
    for (const { header } of this.blocks) {
      const at = place(header);
      if (at < known || at < 0) break;
      if (at < WINDOW_S) counts[at] += header.transaction_count;
    }
    return counts;
  }

  // A task again and again while the page is seen; after a failure as late as the gateway asks.
  _every(periodMs, task) {
    const run = async () => {
      if (!document.hidden && Date.now() >= this._waitUntil) {
        try {
          await task();
          this._troubles.delete(task);
        } catch (error) {
          if (!(error instanceof api.ApiError)) console.error(error);
          this._troubles.set(task, error);
          this._stale = true;
          if (error.retryAfterMs) this._waitUntil = Date.now() + error.retryAfterMs;
        }
        this._changed();
      }
      setTimeout(run, periodMs);
    };
    run();
  }

  async _readStatus() {
    const [status, validators] = await Promise.all([api.status(), api.validators()]);
    this.status = status;
    this.validators = validators;
    this._finalTo(status.final_height);
    this.heardMs = api.gatewayNow();
  }

  async _readBlocks() {
    if (this._refreshing) return;
    this._refreshing = true;
    try {
      this._stale = false;
      const since = (Math.floor(api.gatewayNow() / 1000) - WINDOW_S) * 1000;
      const known = this._byHeight.size ? BigInt(this.blocks[0].header.height) : 0n;
      let cursor = null;
      for (let page = 0; page < FIRST_PAGES_MAX; page++) {
        const answer = await api.blocks(PAGE, cursor);
        for (const block of answer.blocks) this._add(block);
        this._order();
        this._changed();
        const oldest = answer.blocks.at(-1)?.header;
        cursor = answer.next_cursor;
        if (!cursor || oldest.timestamp_ms < since || BigInt(oldest.height) <= known) break;
      }
      this._cutAtGap();
      this.heardMs = api.gatewayNow();
      this.loaded = true;
    } finally {
      this._refreshing = false;
    }
  }

  // The newest blocks with transactions are read in full, few at a time: whole blocks pushed to
  // every reader would be megabytes a second on a busy network.
  async _readTransactions() {
    const wanted = [];
    let count = 0;
    for (const { header } of this.blocks) {
      if (count >= TRANSACTIONS_MAX || wanted.length >= TRANSACTIONS_MAX) break;
      if (header.transaction_count) wanted.push(header.height);
      count += header.transaction_count;
    }
    let reads = 0;
    for (const height of wanted) {
      if (this._shown.has(height) || reads >= TRANSACTION_BLOCKS_MAX) continue;
      reads += 1;
      const answer = await api.blockTransactions(height, 0, TRANSACTIONS_MAX);
      this._shown.set(height, answer.transactions ?? []);
    }
    const newest = [...this._shown.keys()].sort((a, b) => (BigInt(a) < BigInt(b) ? 1 : -1));
    for (const height of newest.slice(TRANSACTIONS_MAX)) this._shown.delete(height);
    this.transactions = newest
      .flatMap((height) => (this._shown.get(height) ?? []).map((item) => ({ height, ...item })))
      .slice(0, TRANSACTIONS_MAX);
  }

  _add(block) {
    const height = block.header.height;
    if (block.final) this._finalTo(height);
    this._byHeight.set(height, block);
  }

  _order() {
    this.blocks = [...this._byHeight.values()].sort((a, b) =>
      BigInt(a.header.height) < BigInt(b.header.height) ? 1 : -1,
    );
    for (const old of this.blocks.splice(BLOCKS_MAX)) this._byHeight.delete(old.header.height);
  }

  // Blocks below a gap that was too wide to read go: what is shown has no holes.
  _cutAtGap() {
    const heights = this.blocks.map(({ header }) => BigInt(header.height));
    const gap = heights.findIndex((height, at) => at > 0 && heights[at - 1] !== height + 1n);
    if (gap < 0) return;
    for (const old of this.blocks.splice(gap)) this._byHeight.delete(old.header.height);
  }

  _finalTo(height) {
    const value = BigInt(height);
    if (value > this.finalHeight) this.finalHeight = value;
  }

  _connect() {
    const socket = api.socket();
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this._open = true;
      socket.send(JSON.stringify({ type: "subscribe", to: "blocks" }));
      // What came while nothing was subscribed has to be asked for.
      this._stale = true;
      this._changed();
    };
    socket.onmessage = (event) => this._take(JSON.parse(event.data));
    socket.onclose = () => {
      this._open = false;
      this._retryMs = opened ? RETRY_FIRST_MS : Math.min(this._retryMs * 2, RETRY_LAST_MS);
      setTimeout(() => this._connect(), this._retryMs * (1 + Math.random() / 2));
      this._changed();
    };
  }

  _take(message) {
    if (message.type === "block") {
      const newest = this.blocks[0];
      this._add(message);
      if (newest && BigInt(message.header.height) === BigInt(newest.header.height) + 1n) {
        this.blocks.unshift(message);
        if (this.blocks.length > BLOCKS_MAX) {
          this._byHeight.delete(this.blocks.pop().header.height);
        }
      } else {
        this._stale = true;
        this._order();
      }
    } else if (message.type === "final") this._finalTo(message.height);
    else if (message.type === "missed") this._stale = true;
    else return;
    this.heardMs = api.gatewayNow();
    this._changed();
  }
}
