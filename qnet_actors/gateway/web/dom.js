// Elements and texts. Everything that comes from the API enters the page here, as text.

const SVG = "http://www.w3.org/2000/svg";
const UNITS_PER_QNET = 1_000_000_000n;

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** An HTML element; children that are no nodes become text. */
export function h(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** An SVG element, likewise. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

/** Puts `children` in the place of whatever an element holds. */
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Digits in groups of three, of a number or a decimal string of any length. */
export function grouped(value) {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** Units of a u64 in text, as QNET without needless zeros. */
export function amount(units) {
  const value = BigInt(units);
  const rest = value % UNITS_PER_QNET;
  const decimals = rest ? "." + String(rest).padStart(9, "0").replace(/0+$/, "") : "";
  return `${grouped(value / UNITS_PER_QNET)}${decimals} QNET`;
}

/** The two ends of an id or address. */
export function shortened(text, head = 8, tail = 6) {
  return text.length <= head + tail + 1 ? text : `${text.slice(0, head)}…${text.slice(-tail)}`;
}

/** How long ago, roughly. */
export function age(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${grouped(Math.floor(seconds / 86_400))} days ago`;
}

/** A time in ms since 1970, in UTC. */
export function time(milliseconds) {
  const date = new Date(milliseconds);
  if (Number.isNaN(date.getTime())) return String(milliseconds);
  return date.toISOString().replace("T", " ").replace("Z", " UTC");
}

/** A code or status of the API for people. */
export function words(label) {
  return label.replaceAll("_", " ");
}

/** A link to a view of this page. */
export function link(kind, id, text = id, className = "mono") {
  const full = text === id ? null : id;
  return h("a", { href: `#/${kind}/${encodeURIComponent(id)}`, class: className, title: full }, text);
}

export function blockLink(height) {
  return link("block", height, grouped(height), "number");
}

/** A mark whose meaning stands in its text; the colour only repeats it. */
export function badge(kind, text) {
  return h("span", { class: "badge", "data-kind": kind }, text);
}

export function statusBadge(status) {
  const kinds = { final: "good", executed: "plain", batched: "plain", received: "plain" };
  return badge(kinds[status] ?? "bad", words(status));
}

export function codeBadge(code) {
  return code === "success" ? badge("good", "success") : badge("bad", words(code));
}

/** A table whose cells carry their column's name, so that it can become cards on a phone. */
export function table(caption, columns, rows, empty) {
  if (!rows.length) return h("p", { class: "empty" }, empty);
  const head = columns.map((name) => h("th", { scope: "col" }, name));
  const body = rows.map((cells) =>
    h("tr", {}, cells.map((cell, at) => h("td", { "data-name": columns[at] }, cell))),
  );
  return h(
    "table",
    {},
    h("caption", { class: "hidden" }, caption),
    h("thead", {}, h("tr", {}, head)),
    h("tbody", {}, body),
  );
}

/** A list of names and what they stand for; pairs that are null are left out. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

export function panel(title, ...children) {
  return h("section", { class: "panel" }, h("h2", {}, title), children);
}
