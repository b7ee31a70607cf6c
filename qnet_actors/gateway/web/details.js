// One block, one transaction, one account; and finding out which of them a text names.

import * as api from "./api.js";
import * as dom from "./dom.js";

const PAGE = 50;
const UNSETTLED_MS = 1_500;
const ACCOUNT_MS = 4_000;
const ENDED = new Set(["final", "replaced", "evicted", "expired", "unpayable"]);

const { h } = dom;
const mono = (text) => h("span", { class: "mono" }, text);
const note = (text) => h("p", { class: "note" }, text);
const number = (value) => h("span", { class: "number" }, dom.grouped(value));

/** What a text names: `{kind, id}`; kind `digest` may be a block or a transaction. */
export function classify(text) {
  const query = text.trim().toLowerCase().replace(/^0x/, "");
  if (query === "latest" || /^[0-9]{1,20}$/.test(query)) return { kind: "block", id: query };
  const digits = query.replace(/[,_\s\u202f]/g, "");
  if (/^[0-9]{1,20}$/.test(digits)) return { kind: "block", id: digits };
  if (/^[0-9a-f]{64}$/.test(query)) return { kind: "digest", id: query };
  if (/^t?qnet1[a-z0-9]{6,100}$/.test(query)) return { kind: "account", id: query };
  return null;
}

async function found(call) {
  try {
    await call;
    return true;
  } catch (error) {
    if (error.code === "not_found") return false;
    throw error;
  }
}

/** Where a text leads, as `{kind, id}`; throws `ApiError` with what to tell the reader. */
export async function resolve(text) {
  const named = classify(text);
  if (!named) {
    throw new api.ApiError(
      "invalid_parameter",
      "Type a block height, a hash or id of 64 hex digits, or an address (qnet1... or tqnet1...).",
    );
  }
  if (named.kind !== "digest") return named;
  const [isBlock, isTransaction] = await Promise.all([
    found(api.block(named.id)),
    found(api.transaction(named.id)),
  ]);
  if (isBlock) return { kind: "block", id: named.id };
  if (isTransaction) return { kind: "tx", id: named.id };
  throw new api.ApiError("not_found", "No block or transaction with this id is known here.");
}

function heading(kind, name) {
  return h("div", { class: "heading" }, h("h1", { tabindex: -1 }, `${kind} `, mono(name)));
}

function pages(id, offset, answer) {
  const links = [];
  if (offset > 0) {
    const before = Math.max(0, offset - PAGE);
    links.push(h("a", { href: `#/block/${id}/${before}` }, "Earlier in the block"));
  }
  if (answer.next_offset) {
    links.push(h("a", { href: `#/block/${id}/${answer.next_offset}` }, "Later in the block"));
  }
  if (!links.length) return null;
  return h("nav", { class: "pages", "aria-label": "Transactions of the block" }, links);
}

async function showBlock(id, at) {
  const offset = /^[0-9]{1,9}$/.test(at ?? "") ? Number(at) : 0;
  const answer = await api.blockTransactions(id, offset, PAGE);
  const { header, hash, final, transactions = [] } = answer;
  const height = BigInt(header.height);
  const age = dom.age(api.gatewayNow() - header.timestamp_ms);
  const rows = transactions.map(({ id: transaction, body, receipt }) => [
    dom.link("tx", transaction, dom.shortened(transaction)),
    dom.link("account", body.sender, dom.shortened(body.sender)),
    dom.words(body.action.kind),
    number(receipt.gas_used),
    dom.codeBadge(receipt.code),
  ]);
  const last = offset + transactions.length;
  const count = dom.grouped(header.transaction_count);
  const shown = transactions.length
    ? `Transactions ${dom.grouped(offset + 1)} to ${dom.grouped(last)} of ${count}`
    : "Transactions";
  return {
    title: `Block ${header.height}`,
    again: final ? null : UNSETTLED_MS,
    content: [
      heading("Block", dom.grouped(header.height)),
      h(
        "nav",
        { class: "pages", "aria-label": "Neighbouring blocks" },
        height > 1n ? h("a", { href: `#/block/${height - 1n}` }, "Previous block") : null,
        h("a", { href: `#/block/${height + 1n}` }, "Next block"),
      ),
      h(
        "section",
        { class: "panel" },
        dom.facts([
          ["Status", dom.statusBadge(final ? "final" : "executed")],
          ["Hash", mono(hash)],
          ["Time", `${dom.time(header.timestamp_ms)} (${age})`],
          ["Transactions", `${count}, ${dom.grouped(header.failed_count)} failed`],
          ["Gas used", number(header.gas_used)],
          ["Epoch", number(header.epoch)],
          ["Commit", number(header.commit_index)],
          ["Parent", height > 1n ? dom.link("block", header.parent) : mono(header.parent)],
          ["Transactions root", mono(header.transactions_root)],
          ["Receipts root", mono(header.receipts_root)],
          ["Write set", mono(header.write_set_digest)],
        ]),
      ),
      dom.panel(
        shown,
        dom.table(
          "Transactions of the block",
          ["Id", "From", "Action", "Gas used", "Result"],
          rows,
          header.transaction_count ? "The block has no transaction there." : "The block is empty.",
        ),
        pages(header.height, offset, answer),
      ),
    ],
  };
}

function actionFacts(action) {
  const facts = [["Action", dom.words(action.kind)]];
  if (action.payee) facts.push(["To", dom.link("account", action.payee)]);
  if (action.amount) facts.push(["Amount", dom.amount(action.amount)]);
  if (action.key_id) facts.push(["New key", mono(action.key_id)]);
  return facts;
}

function payments(action) {
  if (!action.payments) return null;
  const rows = action.payments.map(({ payee, amount }) => [
    dom.link("account", payee, dom.shortened(payee, 14, 8)),
    h("span", { class: "number" }, dom.amount(amount)),
  ]);
  return dom.panel("Payments", dom.table("Payments", ["To", "Amount"], rows, "None."));
}

function events(receipt) {
  if (!receipt?.events?.length) return null;
  const rows = receipt.events.map(({ source, topic, data }) => [
    dom.link("account", source, dom.shortened(source)),
    mono(topic),
    mono(data),
  ]);
  const columns = ["Source", "Topic, base64", "Data, base64"];
  return dom.panel("Events", dom.table("Events", columns, rows, "None."));
}

function validUntil({ valid_until: last }) {
  return last === "0" ? "no end" : `block ${dom.grouped(last)}`;
}

async function showTransaction(id) {
  const { status, block, receipt, body } = await api.transaction(id);
  return {
    title: `Transaction ${dom.shortened(id)}`,
    again: ENDED.has(status) ? null : UNSETTLED_MS,
    content: [
      heading("Transaction", dom.shortened(id)),
      h(
        "section",
        { class: "panel" },
        dom.facts([
          ["Id", mono(id)],
          ["Status", dom.statusBadge(status)],
          receipt && ["Result", dom.codeBadge(receipt.code)],
          block && ["Block", [dom.blockLink(block.height), `, position ${dom.grouped(block.index)}`]],
          body && ["From", dom.link("account", body.sender)],
          ...(body ? actionFacts(body.action) : []),
          body && ["Nonce", number(body.nonce)],
          receipt && ["Gas used", number(receipt.gas_used)],
          body && ["Gas limit", number(body.gas_limit)],
          body && ["Gas price", [number(body.gas_price), " units"]],
          receipt && body && ["Fee", dom.amount(BigInt(receipt.gas_used) * BigInt(body.gas_price))],
          body && ["Valid until", validUntil(body)],
          body && ["Key", mono(body.key_id)],
          receipt?.return_data && ["Returned, base64", mono(receipt.return_data)],
        ]),
        body ? null : note("Sender and payee are shown once the transaction is in a block."),
      ),
      body ? payments(body.action) : null,
      events(receipt),
    ],
  };
}

/** An account's transactions; null where no validator of the gateway keeps a history. */
async function history(id, cursor) {
  try {
    return await api.accountTransactions(id, cursor);
  } catch (error) {
    if (error.code === "not_found") return null;
    throw error;
  }
}

function accountTransactions(id, answer, cursor) {
  if (!answer) return null;
  const rows = answer.transactions.map((item) => [
    dom.link("tx", item.id, dom.shortened(item.id)),
    dom.blockLink(item.height),
    dom.words(item.kind),
    item.sent ? "sent" : "received",
    h("span", { class: "number" }, dom.amount(item.amount)),
    dom.codeBadge(item.code),
  ]);
  const links = [];
  if (cursor) links.push(h("a", { href: `#/account/${id}` }, "Newest"));
  if (answer.next_cursor) {
    links.push(h("a", { href: `#/account/${id}/${answer.next_cursor}` }, "Earlier"));
  }
  return dom.panel(
    "Transactions",
    dom.table(
      "Transactions of the account",
      ["Id", "Block", "Action", "Direction", "Amount", "Result"],
      rows,
      `None ${cursor ? "on this page" : "is kept"}, up to block ${dom.grouped(answer.height)}.`,
    ),
    links.length
      ? h("nav", { class: "pages", "aria-label": "Transactions of the account" }, links)
      : null,
  );
}

async function showAccount(id, at) {
  const cursor = /^[0-9]{1,20}\.[0-9]{1,10}$/.test(at ?? "") ? at : null;
  const [account, next, past] = await Promise.all([
    api.account(id),
    api.nextNonce(id),
    history(id, cursor),
  ]);
  const waiting = BigInt(next.next_nonce) - BigInt(account.nonce);
  const unused = account.balance === "0" && account.nonce === "0" && !account.key_id;
  return {
    title: `Account ${dom.shortened(account.address)}`,
    again: ACCOUNT_MS,
    content: [
      heading("Account", dom.shortened(account.address)),
      h(
        "section",
        { class: "panel" },
        dom.facts([
          ["Address", mono(account.address)],
          ["Balance", dom.amount(account.balance)],
          ["Nonce", number(account.nonce)],
          ["Next nonce", [number(next.next_nonce), waiting > 0n ? ` (${waiting} in the pool)` : ""]],
          ["Key", account.key_id ? mono(account.key_id) : "the address itself"],
          ["As of block", account.height === "0" ? "the genesis" : dom.blockLink(account.height)],
        ]),
        unused ? note("Nothing has happened to this account yet.") : null,
      ),
      accountTransactions(account.address, past, cursor),
    ],
  };
}

const VIEWS = { block: showBlock, tx: showTransaction, account: showAccount };

/** The view that `kind` and `id` name: `{title, content, again}`; throws `ApiError`. */
export async function details(kind, id, at) {
  const view = VIEWS[kind];
  if (!view) throw new api.ApiError("not_found", "There is no such page.");
  return view(id, at);
}
