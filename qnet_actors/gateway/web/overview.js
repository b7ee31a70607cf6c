// The front view: where the network stands, and what is new.

import { gatewayNow } from "./api.js";
import { RateChart } from "./chart.js";
import * as dom from "./dom.js";
import { WINDOW_S } from "./feed.js";

const BLOCKS_SHOWN = 12;
const TRANSACTIONS_SHOWN = 12;
const RATE_S = 10;

const { h } = dom;

/** A table that keeps the rows it has, so that focus and selection outlive an update. */
class LiveTable {
  constructor(caption, columns, empty) {
    this._columns = columns;
    this._rows = new Map();
    this._body = h("tbody", {});
    this._empty = h("p", { class: "empty" }, empty);
    this._table = h(
      "table",
      {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map((name) => h("th", { scope: "col" }, name)))),
      this._body,
    );
    this.element = h("div", { class: "scroll" }, this._table, this._empty);
  }

  /** `items`: key, `cells` (made once) and `changing` (texts by column, each time). */
  set(items, empty) {
    this._table.hidden = !items.length;
    this._empty.hidden = Boolean(items.length);
    if (empty) dom.replace(this._empty, empty);
    let next = this._body.firstChild;
    const seen = new Set();
    for (const item of items) {
      seen.add(item.key);
      const row = this._rows.get(item.key) ?? this._make(item);
      if (row === next) next = next.nextSibling;
      else this._body.insertBefore(row, next);
      for (const [column, value] of Object.entries(item.changing ?? {})) {
        this._update(row, column, value);
      }
    }
    for (const [key, row] of this._rows) {
      if (seen.has(key)) continue;
      row.remove();
      this._rows.delete(key);
    }
  }

  _make(item) {
    const row = h(
      "tr",
      {},
      this._columns.map((name) => h("td", { "data-name": name }, item.cells[name])),
    );
    this._rows.set(item.key, row);
    return row;
  }

  _update(row, column, value) {
    const cell = row.children[this._columns.indexOf(column)];
    const node = value instanceof Node ? value : document.createTextNode(value);
    if (cell.textContent !== node.textContent) dom.replace(cell, node);
  }
}

class Figure {
  constructor(name) {
    this._value = h("strong", {}, "–");
    this._note = h("small", {}, "");
    this.element = h("div", { class: "figure" }, h("span", {}, name), this._value, this._note);
  }

  set(value, note = "") {
    if (this._value.textContent !== value) dom.replace(this._value, value);
    if (this._note.textContent !== note) dom.replace(this._note, note);
  }
}

function payees(action) {
  if (action.kind === "multi_transfer") return `${action.payments.length} payees`;
  if (!action.payee) return "–";
  return dom.link("account", action.payee, dom.shortened(action.payee));
}

function moved(action) {
  if (action.kind === "transfer") return dom.amount(action.amount);
  if (action.kind !== "multi_transfer") return dom.words(action.kind);
  return dom.amount(action.payments.reduce((sum, { amount }) => sum + BigInt(amount), 0n));
}

/** The view; `update` shows what a feed holds now. */
export class Overview {
  constructor() {
    this.title = "Overview";
    this._paused = false;
    this._figures = {
      height: new Figure("Height"),
      final: new Figure("Final height"),
      rate: new Figure("Transactions a second"),
      pool: new Figure("Waiting in the pool"),
      round: new Figure("Round"),
      validators: new Figure("Validators connected"),
    };
    this._chart = new RateChart(WINDOW_S);
    this._blocks = new LiveTable(
      "Newest blocks",
      ["Height", "Hash", "Transactions", "Age", "Status"],
      "Reading blocks",
    );
    this._transactions = new LiveTable(
      "Newest transactions",
      ["Id", "From", "To", "Amount", "Result", "Block"],
      "Reading transactions",
    );
    this._validators = new LiveTable(
      "Validators",
      ["Validator", "Link", "Stake", "Scheme", "Key", "Rewards to"],
      "Reading the committee",
    );
    this._quorum = h("p", { class: "note" });
    this._pause = h("button", { type: "button", class: "pause" }, "Pause");
    this._pause.addEventListener("click", () => this._toggle());
    this.element = h(
      "div",
      { class: "overview" },
      h(
        "div",
        { class: "heading" },
        h("h1", { tabindex: -1 }, "The network now"),
        this._pause,
      ),
      h("div", { class: "figures" }, Object.values(this._figures).map((one) => one.element)),
      dom.panel("Transactions a second", this._chart.element),
      h(
        "div",
        { class: "pair" },
        dom.panel("Newest blocks", this._blocks.element),
        dom.panel("Newest transactions", this._transactions.element),
      ),
      dom.panel("Validators", this._quorum, this._validators.element),
    );
  }

  update(feed) {
    if (this._paused) return;
    const counts = feed.perSecond();
    this._chart.set(counts);
    this._updateFigures(feed, counts);
    this._updateBlocks(feed);
    this._updateTransactions(feed);
    this._updateValidators(feed);
  }

  _toggle() {
    this._paused = !this._paused;
    this._pause.dataset.paused = String(this._paused);
    dom.replace(this._pause, this._paused ? "Paused: go on" : "Pause");
  }

  _updateFigures(feed, counts) {
    const { height, final, rate, pool, round, validators } = this._figures;
    const newest = feed.blocks[0]?.header;
    if (feed.height !== null) {
      height.set(dom.grouped(feed.height), newest ? dom.age(gatewayNow() - newest.timestamp_ms) : "");
      const behind = BigInt(feed.height) - feed.finalHeight;
      final.set(
        dom.grouped(feed.finalHeight),
        behind > 0n ? `${dom.grouped(behind)} not final yet` : "all is final",
      );
    }
    const known = counts.slice(-RATE_S).filter((count) => count !== null);
    if (feed.loaded && known.length) {
      const recent = known.reduce((sum, count) => sum + count, 0) / known.length;
      const text = recent >= 10 ? dom.grouped(Math.round(recent)) : recent.toFixed(1);
      rate.set(text, `over ${known.length} s`);
    }
    if (feed.status) {
      pool.set(dom.grouped(feed.status.pool_transactions), "transactions");
      round.set(dom.grouped(feed.status.round), `epoch ${dom.grouped(feed.status.epoch)}`);
    }
    if (feed.validators) {
      const all = feed.validators.validators;
      const up = all.filter((validator) => validator.connected).length;
      const note = up === all.length ? "all linked" : "some are not linked";
      validators.set(`${up} of ${all.length}`, note);
    }
  }

  _updateBlocks(feed) {
    const items = feed.blocks.slice(0, BLOCKS_SHOWN).map(({ hash, header }) => ({
      key: hash,
      cells: {
        Height: dom.blockLink(header.height),
        Hash: dom.link("block", hash, dom.shortened(hash)),
        Transactions: header.failed_count
          ? `${dom.grouped(header.transaction_count)}, ${dom.grouped(header.failed_count)} failed`
          : dom.grouped(header.transaction_count),
      },
      changing: {
        Age: dom.age(gatewayNow() - header.timestamp_ms),
        Status: dom.statusBadge(feed.isFinal(header.height) ? "final" : "executed"),
      },
    }));
    this._blocks.set(items, feed.loaded ? "There is no block yet." : null);
  }

  _updateTransactions(feed) {
    const items = feed.transactions.slice(0, TRANSACTIONS_SHOWN).map((item) => ({
      key: item.id,
      cells: {
        Id: dom.link("tx", item.id, dom.shortened(item.id, 6, 4)),
        From: dom.link("account", item.body.sender, dom.shortened(item.body.sender)),
        To: payees(item.body.action),
        Amount: h("span", { class: "number" }, moved(item.body.action)),
        Result: dom.codeBadge(item.receipt.code),
        Block: dom.blockLink(item.height),
      },
    }));
    const none = "There is no transaction in the newest blocks.";
    this._transactions.set(items, feed.loaded ? none : null);
  }

  _updateValidators(feed) {
    if (!feed.validators) return;
    const { quorum, epoch, validators } = feed.validators;
    const total = validators.reduce((sum, { stake }) => sum + BigInt(stake), 0n);
    const told =
      `Epoch ${dom.grouped(epoch)}. A quorum is ${dom.grouped(quorum)} of ` +
      `${dom.grouped(total)} stake. Links are as the validator sees them that answered.`;
    if (this._quorum.textContent !== told) dom.replace(this._quorum, told);
    const items = validators.map((validator) => ({
      key: validator.key_id,
      cells: {
        Validator: String(validator.index),
        Scheme: validator.scheme.toUpperCase().replaceAll("_", "-"),
        Key: h("span", { class: "mono", title: validator.key_id }, dom.shortened(validator.key_id)),
        "Rewards to": dom.link("account", validator.reward, dom.shortened(validator.reward)),
      },
      changing: {
        Link: validator.connected
          ? dom.badge("good", "connected")
          : dom.badge("bad", "not connected"),
        Stake: dom.grouped(validator.stake),
      },
    }));
    this._validators.set(items);
  }
}
