// Conveniences of the portal: pages that follow what happens, and text that is copied by a click.
// Every page works without this file.
"use strict";

const RETRY_MS = 15000;

function follow(address) {
  const source = new EventSource(address);
  source.addEventListener("part", event => {
    const { name, html } = JSON.parse(event.data);
    const region = document.querySelector(`[data-part="${CSS.escape(name)}"]`);
    if (region) update(region, html);
  });
  // A refused stream is closed by the browser; one that ended is opened again by it.
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow(address), RETRY_MS);
  });
}

// A press of the mouse is a click only where the element stays until it is released.
let isPressed = false;
const waiting = new Map();
addEventListener("pointerdown", () => { isPressed = true; }, true);
for (const kind of ["pointerup", "pointercancel", "dragend"]) {
  addEventListener(kind, () => {
    isPressed = false;
    setTimeout(() => {  // behind the click
      const late = [...waiting];
      waiting.clear();
      for (const [region, html] of late) update(region, html);
    });
  }, true);
}

function update(region, html) {
  if (isPressed) {
    waiting.set(region, html);
    return;
  }
  const active = document.activeElement;
  const writes = region.contains(active) && active.matches("input:not([type=hidden]), select, textarea");
  if (writes) {  // what is being typed stays; the next change comes with the next look
    region.dataset.late = html;
    active.addEventListener("blur", () => {
      const late = region.dataset.late;
      delete region.dataset.late;
      if (late) update(region, late);
    }, { once: true });
    return;
  }
  const open = [...region.querySelectorAll("details[open][id]")].map(one => one.id);
  const focused = region.contains(active) ? active.id || active.closest("[id]")?.id : "";
  const before = phases(region);
  const fresh = new DOMParser().parseFromString(html, "text/html");
  region.replaceChildren(...fresh.body.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (focused) {
    const again = document.getElementById(focused);
    (again?.matches("a, button, summary, input, pre") ? again : again?.querySelector("summary, button, a"))?.focus();
  }
  prepare(region);
  announce(before, phases(region));
}

function phases(region) {
  return new Map([...region.querySelectorAll("[data-phase]")].map(one =>
    [one.dataset.name, one.dataset.phase + (one.querySelector(".soon") ? ", about to stop" : "")]));
}

function announce(before, after) {
  const changed = [...after].filter(([name, phase]) => before.has(name) && before.get(name) !== phase);
  if (changed.length) {
    document.getElementById("heard").textContent = changed.map(([name, phase]) => `${name}: ${phase}`).join(", ");
  }
}

function prepare(root) {
  for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
}

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without permission, or over plain http: what is selected can be copied by key
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    document.getElementById("heard").textContent = "The text is selected; copy it by key.";
    return;
  }
  const label = button.firstChild;
  const was = label.textContent;
  label.textContent = "Copied";
  document.getElementById("heard").textContent = "Copied.";
  setTimeout(() => { label.textContent = was; }, 1500);
}

document.addEventListener("click", event => {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
  const menu = document.getElementById("me");
  if (menu?.open && !menu.contains(event.target)) menu.open = false;
});

document.addEventListener("keydown", event => {
  const menu = document.getElementById("me");
  if (event.key === "Escape" && menu?.open) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

prepare(document);
if (document.body.dataset.live) follow(document.body.dataset.live);
