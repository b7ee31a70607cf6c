// The page: which view is shown, the lookup, and what is said of the connection.

import { ApiError } from "./api.js";
import { details, resolve } from "./details.js";
import { h, replace, shortened, time } from "./dom.js";
import { Feed } from "./feed.js";
import { Overview } from "./overview.js";

const RENDER_MS = 250;
const RETRY_MS = 3_000;
const MODES = {
  connecting: "Connecting",
  live: "Live",
  polling: "Polling every 2 s",
  offline: "Offline, trying again",
};

const byId = (id) => document.getElementById(id);
const main = byId("main");
const overview = new Overview();
const feed = new Feed(schedule);
let scheduled = false;
// Of the view that is shown: what comes for an older one is dropped.
let visit = 0;
let timer = null;

function schedule() {
  if (scheduled) return;
  scheduled = true;
  setTimeout(() => {
    scheduled = false;
    requestAnimationFrame(render);
  }, RENDER_MS);
}

function setText(element, text) {
  if (element.textContent !== text) replace(element, text);
}

function render() {
  const connection = byId("connection");
  connection.dataset.state = feed.mode;
  setText(connection, MODES[feed.mode]);
  renderTrouble();
  if (feed.status) {
    const { name, development, chain_id: chain, version } = feed.status;
    const kind = development ? ", development" : "";
    setText(byId("network"), `${name}${kind}, chain ${shortened(chain)}`);
    setText(byId("version"), `version ${version}`);
  }
  if (overview.element.isConnected) overview.update(feed);
  document.documentElement.dataset.loaded = String(feed.loaded && feed.status !== null);
}

function renderTrouble() {
  const trouble = byId("trouble");
  trouble.hidden = !feed.trouble;
  if (!feed.trouble) return;
  const heard = feed.heardMs && time(feed.heardMs).slice(11, 19);
  const shown = heard ? ` Shown is what was known at ${heard} UTC.` : "";
  setText(trouble, `${explain(feed.trouble)}${shown} Trying again.`);
}

function explain(error) {
  return error instanceof ApiError ? error.message : "The page met an unexpected answer.";
}

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return parts.map(decodeURIComponent);
  } catch {
    return ["unknown"];
  }
}

function navigate(focus) {
  visit += 1;
  clearTimeout(timer);
  showLookupError("");
  const [kind, id, at] = route();
  if (!kind) {
    replace(main, overview.element);
    document.title = "QNet explorer";
    render();
    if (focus) focusHeading();
    return;
  }
  replace(main, h("p", { class: "empty", role: "status" }, "Reading"));
  showDetails(visit, kind, id ?? "", at, focus);
}

async function showDetails(own, kind, id, at, focus) {
  let again = null;
  try {
    const view = await details(kind, id, at);
    if (own !== visit) return;
    again = view.again;
    document.title = `${view.title} · QNet explorer`;
    show(view.content);
  } catch (error) {
    if (own !== visit) return;
    if (!(error instanceof ApiError)) console.error(error);
    // What is not there may come, and who does not answer may answer yet.
    again = error.code === "invalid_parameter" || error.code === "bad_address" ? null : RETRY_MS;
    document.title = "Not shown · QNet explorer";
    show(refusal(error));
  }
  if (focus) focusHeading();
  if (again) timer = setTimeout(() => refresh(own, kind, id, at), again);
}

function refresh(own, kind, id, at) {
  if (own !== visit) return;
  // Not while somebody reads with the keyboard inside: new elements would take the focus away.
  const busy = document.hidden || main.querySelector("a:focus");
  if (busy) timer = setTimeout(() => refresh(own, kind, id, at), RETRY_MS);
  else showDetails(own, kind, id, at, false);
}

let shownText = "";

function show(content) {
  const holder = h("div", { class: "details" }, content);
  // The same again is left alone, with whatever the reader has selected or focused in it.
  if (main.firstElementChild?.className === "details" && shownText === holder.textContent) return;
  const focused = main.contains(document.activeElement) && document.activeElement !== main;
  shownText = holder.textContent;
  replace(main, holder);
  if (focused) focusHeading();
}

function refusal(error) {
  const titles = { not_found: "Not found", offline: "No answer" };
  const title = titles[error.code] ?? "This cannot be shown";
  return [
    h("div", { class: "heading" }, h("h1", { tabindex: -1 }, title)),
    h(
      "section",
      { class: "panel" },
      h("p", {}, explain(error)),
      error.code ? h("p", { class: "note" }, "Code: ", h("code", {}, error.code)) : null,
      h("p", {}, h("a", { href: "#/" }, "To the overview")),
    ),
  ];
}

function focusHeading() {
  main.querySelector("h1")?.focus();
}

function showLookupError(text) {
  const element = byId("lookup-error");
  element.hidden = !text;
  setText(element, text);
  byId("query").setAttribute("aria-invalid", String(Boolean(text)));
}

byId("lookup").addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = byId("query");
  const own = visit;
  try {
    const { kind, id } = await resolve(input.value);
    if (own !== visit) return;
    const target = `#/${kind}/${id}`;
    input.value = "";
    if (location.hash === target) navigate(true);
    else location.hash = target;
  } catch (error) {
    if (!(error instanceof ApiError)) console.error(error);
    showLookupError(explain(error));
  }
});

window.addEventListener("hashchange", () => navigate(true));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
navigate(false);
feed.start();
