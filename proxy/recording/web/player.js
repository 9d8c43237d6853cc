"use strict";
// Shows a recording whose screens were computed when the page was written. The page holds parts, each of them
// gzip in base64: {"styles": [SGR, ...], "frames": [[seconds, cursor, {row: runs}, size?], ...]}. The first frame
// of a part is a whole screen, so that a seek decodes one part.

const LONGEST_PAUSE_S = 2; // of a pause that is skipped, so much remains
const KEPT_PARTS = 8; // decoded parts that stay in memory
const BASE_COLOURS = {
  light: ["#24292f", "#c3241c", "#1a7f37", "#8a6100", "#0a58ca", "#8250df", "#0b7285", "#6e7781",
    "#57606a", "#d1242f", "#2da44e", "#bf8700", "#218bff", "#a475f9", "#3192aa", "#adb5bd"],
  dark: ["#3b4048", "#f2777a", "#8fd17f", "#f2c55c", "#6cb0ff", "#c792ea", "#66d1d1", "#d7dae0",
    "#6b7280", "#ff8f8f", "#a6e39a", "#ffd67a", "#8cc4ff", "#dbb2ff", "#8ae6e6", "#ffffff"],
};
const darkMode = matchMedia("(prefers-color-scheme: dark)");
const at = (id) => document.getElementById(id);
const [screen, cursor, playButton, seekBar, timeLabel] = ["screen", "cursor", "play", "seek", "time"].map(at);
const [speedMenu, skipBox, searchBox, stage] = ["speed", "skip", "search", "stage"].map(at);
const sources = [...document.querySelectorAll("script.part")];
const begins = sources.map((source) => Number(source.dataset.begins));
const duration = Number(at("player").dataset.duration);

const decoded = new Map(); // number of a part → promise of its content
function part(number) {
  if (!decoded.has(number)) {
    decoded.set(number, decode(sources[number].textContent));
    for (const old of decoded.keys()) if (decoded.size > KEPT_PARTS && old !== number) decoded.delete(old);
  }
  return decoded.get(number);
}

async function decode(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

// ---------------------------------------------------------------------------------------- colours

function colour(number) {
  if (number < 16) return BASE_COLOURS[darkMode.matches ? "dark" : "light"][number];
  if (number > 231) return `rgb(${Array(3).fill(8 + 10 * (number - 232)).join()})`;
  const level = (step) => (step ? 55 + 40 * step : 0);
  const cube = number - 16;
  return `rgb(${[Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level).join()})`;
}

// Reads the parameters of SGR (ECMA-48 §8.3.117), which the terminal core wrote in one form only.
function look(sgr) {
  const style = { decoration: new Set() };
  const codes = sgr.split(";");
  const extended = () => (codes.shift() === "5" ? colour(Number(codes.shift())) : `rgb(${codes.splice(0, 3).join()})`);
  while (codes.length) {
    const code = codes.shift();
    if (code === "38") style.fg = extended();
    else if (code === "48") style.bg = extended();
    else if (code === "58") style.line = extended();
    else if (code === "1") style.bold = true;
    else if (code === "2") style.faint = true;
    else if (code === "3") style.italic = true;
    else if (code === "7") style.inverse = true;
    else if (code === "8") style.hidden = true;
    else if (code === "9") style.decoration.add("line-through");
    else if (code === "53") style.decoration.add("overline");
    else if (code.startsWith("4") || code === "21") {
      style.decoration.add("underline");
      style.wave = { "4:2": "double", "4:3": "wavy", "4:4": "dotted", "4:5": "dashed", 21: "double" }[code];
    }
  }
  return style;
}

function dress(span, sgr) {
  const { decoration, fg, bg, line, bold, faint, italic, inverse, hidden, wave } = look(sgr);
  const css = span.style;
  if (inverse) [css.color, css.background] = [bg || "var(--bg)", fg || "var(--fg)"];
  else [css.color, css.background] = [fg || "", bg || ""];
  if (bold) css.fontWeight = "bold";
  if (italic) css.fontStyle = "italic";
  if (faint) css.opacity = 0.6;
  if (hidden) css.color = "transparent";
  if (decoration.size) css.textDecoration = [...decoration, wave || "", line || ""].join(" ");
}

// ------------------------------------------------------------------------------------------ drawing

const shown = { part: -1, frame: -1, rows: [], size: [0, 0], cursor: 0 };

function draw(row, runs, styles) {
  const spans = runs.map(([style, text, cells]) => {
    const span = document.createElement("span");
    span.textContent = text;
    if (cells !== undefined) {
      span.className = "cells";
      span.style.width = `${cells}ch`;
    }
    if (styles[style]) dress(span, styles[style]);
    return span;
  });
  row.replaceChildren(...spans);
}

// Collects the rows that frames changed, so that each is drawn once however many frames are applied.
function apply(content, from, to) {
  const changed = new Map();
  for (let number = from; number <= to; number++) {
    const [, place, rows, size] = content.frames[number];
    if (size) {
      shown.size = size;
      shown.rows = Array.from({ length: size[1] }, () => []);
      shown.rows.forEach((_, y) => changed.set(y, []));
    }
    for (const y in rows) changed.set(Number(y), (shown.rows[y] = rows[y]));
    shown.cursor = place;
  }
  while (screen.childElementCount - 1 > shown.size[1]) cursor.previousElementSibling.remove();
  while (screen.childElementCount - 1 < shown.size[1]) screen.insertBefore(document.createElement("div"), cursor);
  for (const [y, runs] of changed) if (y < shown.size[1]) draw(screen.children[y], runs, content.styles);
  screen.style.minHeight = `${shown.size[1] * 1.3}em`;
  cursor.hidden = !shown.cursor;
  if (shown.cursor) {
    const [x, y] = shown.cursor;
    cursor.style.left = `calc(.6em + ${x}ch)`;
    cursor.style.top = `calc(.6em + ${1.3 * y}em)`;
  }
}

// The last place whose value is not above `limit`; at least 0.
function lastUpTo(values, limit, value = (one) => one) {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (value(values[middle]) <= limit) low = middle;
    else high = middle - 1;
  }
  return low;
}

let asked = 0;
async function show(seconds) {
  const mine = ++asked;
  const number = lastUpTo(begins, seconds);
  const content = await part(number);
  if (mine !== asked) return null; // a later request is under way
  const frame = lastUpTo(content.frames, seconds, ([when]) => when);
  const goesOn = shown.part === number && shown.frame <= frame;
  if (!goesOn || shown.frame < frame) apply(content, goesOn ? shown.frame + 1 : 0, frame);
  Object.assign(shown, { part: number, frame });
  return frame + 1 < content.frames.length ? content.frames[frame + 1][0] : (begins[number + 1] ?? duration);
}

// ------------------------------------------------------------------------------------------ playing

let now = 0; // seconds of the recording
let isPlaying = false;
let timer = 0;

const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(seconds < 3600 ? 14 : 11, 19);

async function move(seconds) {
  now = Math.min(Math.max(seconds, 0), duration);
  seekBar.value = now;
  seekBar.setAttribute("aria-valuetext", clock(now));
  timeLabel.textContent = `${clock(now)} / ${clock(duration)}`;
  return show(now);
}

async function step() {
  clearTimeout(timer);
  const next = await move(now);
  if (!isPlaying || next === null) return;
  if (now >= duration) {
    setPlaying(false);
    return;
  }
  let wait = Math.max(next - now, 0);
  if (skipBox.checked) wait = Math.min(wait, LONGEST_PAUSE_S);
  // A long pause is walked in pieces, so that the clock runs.
  const [piece, target] = wait > 0.25 ? [0.25, next - wait + 0.25] : [wait, next];
  timer = setTimeout(() => {
    now = Math.max(target, now);
    step();
  }, (piece / Number(speedMenu.value)) * 1000);
}

function setPlaying(wanted) {
  if (wanted && now >= duration) now = 0;
  isPlaying = wanted;
  playButton.textContent = wanted ? "Pause" : "Play";
  clearTimeout(timer);
  if (wanted) step();
}

function jump(seconds) {
  clearTimeout(timer);
  return move(seconds).then(() => isPlaying && step());
}

function changeSpeed(by) {
  speedMenu.selectedIndex = Math.min(Math.max(speedMenu.selectedIndex + by, 0), speedMenu.length - 1);
}

// ---------------------------------------------------------------------------------------- searching

// Goes on from the present frame, around the end, to the next frame that adds a row with the text.
async function search(text) {
  const wanted = text.toLowerCase();
  if (!wanted) return;
  const first = { number: shown.part, frame: shown.frame };
  for (let turn = 0; turn <= sources.length; turn++) {
    const number = (first.number + turn) % sources.length;
    const { frames } = await part(number);
    const begin = turn === 0 ? first.frame + 1 : 0;
    const end = turn === sources.length ? first.frame + 1 : frames.length;
    for (let frame = begin; frame < end; frame++) {
      const [seconds, , rows] = frames[frame];
      // The first frame of a part repeats what is on the screen; it counts where the recording begins.
      if (frame === 0 && number > 0) continue;
      if (Object.values(rows).some((runs) => runs.map((run) => run[1]).join("").toLowerCase().includes(wanted))) {
        setPlaying(false);
        await move(seconds);
        mark(wanted);
        searchBox.setCustomValidity("");
        return;
      }
    }
  }
  searchBox.setCustomValidity("This text is not in the recording.");
  searchBox.reportValidity();
}

function mark(wanted) {
  for (const row of screen.children) {
    if (!row.textContent.toLowerCase().includes(wanted)) continue;
    for (const span of row.children) span.classList.toggle("found", span.textContent.toLowerCase().includes(wanted));
    row.scrollIntoView({ block: "nearest" });
  }
}

// ----------------------------------------------------------------------------------------- controls

const KEYS = {
  " ": () => setPlaying(!isPlaying),
  ArrowLeft: () => jump(now - 5),
  ArrowRight: () => jump(now + 5),
  Home: () => jump(0),
  End: () => jump(duration),
  "<": () => changeSpeed(-1),
  ">": () => changeSpeed(1),
  "/": () => searchBox.focus(),
};

playButton.addEventListener("click", () => setPlaying(!isPlaying));
seekBar.addEventListener("input", () => jump(Number(seekBar.value)));
at("find").addEventListener("submit", (event) => {
  event.preventDefault();
  search(searchBox.value);
});
searchBox.addEventListener("input", () => searchBox.setCustomValidity(""));
for (const note of document.querySelectorAll("#notes button")) {
  note.addEventListener("click", () => jump(Number(note.dataset.at)));
}
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input:not([type=range]):not([type=checkbox]), select");
  const act = KEYS[event.key];
  if (!act || isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && event.target.matches("button, [type=checkbox]")) return; // the browser's own meaning
  event.preventDefault();
  act();
});
darkMode.addEventListener("change", () => {
  shown.part = -1;
  show(now);
});
seekBar.max = duration;

// A link may name a moment: page.html#t=12.5, or #t=end.
function followLink() {
  const [, moment] = /^#t=([\d.]+|end)$/.exec(location.hash) || [];
  return move(moment === "end" ? duration : Number(moment) || 0);
}
addEventListener("hashchange", followLink);
followLink();
