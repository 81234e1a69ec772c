// Draws the frames that warmnode sends. Every name from the cluster becomes text (textContent, dataset), never markup.
"use strict";

const $ = (id) => document.getElementById(id);
const grid = $("grid");
const empty = () => ({columns: new Map(), order: [], frame: null});

let live = empty();
let past = null; // what is drawn instead, while the slider is not at its end
let drawn = new Map(); // node UID -> {element, cells, label, data, cell elements by UID}
let dirty = new Set(); // UIDs whose column has changed since it was drawn
let isScheduled = false;
let chosen = null; // {node, pod} by UID
let gridWidth = grid.clientWidth; // to ask for it while drawing would lay out everything at once
let lastContact = Date.now();
let lostSince = null;
let drawnAll = Date.now();

function take(model, frame) {
  if (frame.order) {
    model.order = frame.order;
    const there = new Set(frame.order);
    for (const uid of model.columns.keys()) if (!there.has(uid)) model.columns.delete(uid);
  }
  for (const column of frame.columns) model.columns.set(column.uid, column);
  model.frame = frame;
}

const shown = () => past || live;

function schedule() {
  if (!isScheduled) {
    isScheduled = true;
    requestAnimationFrame(draw);
  }
}

// -- drawing ----------------------------------------------------------------------------------------------------------

function draw() {
  isScheduled = false;
  const model = shown();
  if (!model.frame) return;
  for (const [uid, entry] of drawn) {
    if (!model.columns.has(uid)) {
      entry.element.remove();
      drawn.delete(uid);
    }
  }
  for (const uid of model.columns.keys()) {
    if (!drawn.has(uid)) {
      drawn.set(uid, newColumn(uid));
      dirty.add(uid);
    }
  }
  for (const uid of dirty) {
    const column = model.columns.get(uid);
    if (column) drawColumn(drawn.get(uid), column);
  }
  dirty.clear();
  let at = grid.firstElementChild;
  for (const uid of model.order) {
    const {element} = drawn.get(uid);
    if (element === at) at = at.nextElementSibling;
    else grid.insertBefore(element, at);
  }
  size(model);
  drawFigures(model);
}

function size(model) {
  const many = model.order.length || 1;
  const width = Math.max(24, Math.min(110, Math.floor((gridWidth - 8) / many) - 3));
  let most = 1;
  for (const column of model.columns.values()) most = Math.max(most, column.cells.length);
  const across = Math.max(1, Math.floor((width - 4) / 20));
  const height = Math.min(420, Math.max(150, Math.ceil(most / across) * 20 + 64));
  if (grid.dataset.size === `${width} ${height}`) return; // to set them again would style every cell anew
  grid.dataset.size = `${width} ${height}`;
  grid.style.setProperty("--width", `${width}px`);
  grid.style.setProperty("--height", `${height}px`);
  const isNarrow = width < 64;
  if (isNarrow !== grid.classList.contains("narrow")) {
    grid.classList.toggle("narrow", isNarrow);
    redraw(); // what stands below a column is another
  }
}

function newColumn(uid) {
  const element = document.createElement("div");
  element.className = "node";
  element.id = `node-${uid}`;
  element.dataset.uid = uid;
  element.setAttribute("role", "row");
  const cells = document.createElement("div");
  cells.className = "cells";
  const label = document.createElement("div");
  label.className = "label";
  const parts = ["b", "span", "span"].map((tag) => label.appendChild(document.createElement(tag)));
  element.append(cells, label);
  return {element, cells, parts, byUid: new Map()};
}

function drawColumn(entry, column) {
  const {element, parts} = entry;
  const state = column.leaving ? " leaving" : column.ending ? " ending" : "";
  const isChosen = chosen && !chosen.pod && chosen.node === column.uid;
  const look = `node ${column.needed ? "needed" : "spare"}${state}${isChosen ? " chosen" : ""}`;
  if (element.className !== look) element.className = look;
  const title = titleOf(column);
  if (element.title !== title) {
    element.title = title;
    element.setAttribute("aria-label", title);
  }
  write(parts[0], grid.classList.contains("narrow") ? String(column.rank ?? "-") : column.name);
  write(parts[1], column.leaving ? `leaving: ${column.leaving}` : ageOf(column));
  const price = column.price === null ? "" : `$${column.price.toFixed(2)}/h`;
  write(parts[2], [column.instance_type, price].filter(Boolean).join(" "));
  const there = new Set(column.cells.map((cell) => cell.uid));
  for (const [uid, cell] of entry.byUid) {
    if (!there.has(uid)) {
      cell.remove();
      entry.byUid.delete(uid);
    }
  }
  let at = entry.cells.firstElementChild;
  for (const cell of column.cells) {
    let one = entry.byUid.get(cell.uid);
    if (!one) {
      one = document.createElement("i");
      one.id = `pod-${cell.uid}`;
      one.dataset.uid = cell.uid;
      one.setAttribute("role", "gridcell");
      entry.byUid.set(cell.uid, one);
    }
    drawCell(one, cell);
    if (one === at) at = at.nextElementSibling;
    else entry.cells.insertBefore(one, at);
  }
}

function drawCell(one, cell) {
  const other = $("pool").value && $("pool").value !== cell.pool;
  const isChosen = chosen && chosen.pod === cell.uid;
  const name = `cell ${cell.state}${other ? " other" : ""}${isChosen ? " chosen" : ""}`;
  if (one.className !== name) one.className = name;
  const title = `${cell.pod}: ${cell.state}, pool ${cell.pool}${cell.key === null ? "" : `, cache key ${cell.key}`}`;
  if (one.title !== title) {
    one.title = title;
    one.setAttribute("aria-label", title);
    if (cell.key === null) delete one.dataset.key;
    else {
      one.dataset.key = cell.key.slice(0, 2);
      one.style.setProperty("--hue", hueOf(cell.key));
    }
  }
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function hueOf(key) {
  let hash = 0;
  for (const character of key) hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  return String((hash * 137) % 360);
}

function span(from) {
  const seconds = Math.max(0, Math.floor((Date.parse(shown().frame.now) - Date.parse(from)) / 1000));
  const units = [[86400, "d"], [3600, "h"], [60, "m"]];
  for (const [size, unit] of units) if (seconds >= size) return `${Math.floor(seconds / size)}${unit}`;
  return `${seconds}s`;
}

const ageOf = (column) => (column.first_seen ? `seen ${span(column.first_seen)} ago` : "no worker yet");

function titleOf(column) {
  const counts = {};
  for (const cell of column.cells) counts[cell.state] = (counts[cell.state] || 0) + 1;
  const workers = Object.entries(counts).map(([state, number]) => `${number} ${state}`).join(", ") || "no workers";
  const rank = column.rank === null ? "no rank" : `rank ${column.rank}`;
  const going = column.leaving ? `, leaving (${column.leaving})` : column.ending ? `, ending (${column.ending})` : "";
  return `${column.name}: ${rank}, ${ageOf(column)}${going}, ${workers}` + (column.needed || column.leaving ? "" : ", not needed");
}

function drawFigures(model) {
  const frame = model.frame;
  const workers = [...model.columns.values()].reduce((sum, column) => sum + column.cells.length, 0);
  const idleNodes = [...model.columns.values()].filter((column) => !column.cells.length && !column.leaving).length;
  const money = frame.dollars_an_hour === null ? "" : `, $${frame.dollars_an_hour.toFixed(2)} an hour`;
  $("totals").textContent = `${model.order.length} nodes (${idleNodes} without a worker), ${workers} workers${money}`;
  $("pools").replaceChildren(...frame.pools.flatMap(poolRows));
  replaceOptions(frame.pools.map((pool) => pool.name));
  fill($("unknown"), frame.unknown, (text) => item(`not known: ${text}`));
  fill($("lately"), frame.lately, happeningItem);
  fill($("decided"), frame.decided, happeningItem);
  $("decided-section").hidden = !frame.decided.length;
  tellTrouble(frame);
  const reach = Math.floor((Date.parse(live.frame.now) - Date.parse(live.frame.begun)) / 10000) * 10;
  $("time").min = String(Math.min(-10, -reach));
  $("when").textContent = past
    ? `${clock(frame.now)}, ${span2(Date.parse(live.frame.now) - Date.parse(frame.now))} ago`
    : `live, ${clock(frame.now)}`;
  document.body.classList.toggle("past", Boolean(past));
}

function poolRows(pool) {
  const row = document.createElement("tr");
  const states = ["busy", "claimed", "idle", "starting", "going"].map((state) => pool.counts[state] || 0);
  const pass = pool.waits ? `waits: ${pool.waits}` : `${pool.would_evict} to evict${pool.dry_run ? ", but for dry-run" : ""}`;
  const values = [pool.name, ...states, pool.waiting, pool.nodes, pool.needs, pool.floor, pass];
  for (const value of values) row.appendChild(document.createElement("td")).textContent = String(value);
  if (pool.shadow === null) return [row];
  const told = document.createElement("tr");
  const cell = told.appendChild(document.createElement("td"));
  cell.colSpan = values.length;
  cell.className = "shadow";
  cell.textContent = `in the shadow: ${pool.shadow}`;
  return [row, told];
}

function replaceOptions(names) {
  const select = $("pool");
  const known = [...select.options].slice(1).map((option) => option.value);
  if (JSON.stringify(known) === JSON.stringify(names)) return;
  const value = select.value;
  for (const option of [...select.options].slice(1)) option.remove();
  for (const name of names) select.add(new Option(name, name));
  select.value = names.includes(value) ? value : "";
}

function fill(list, things, made) {
  const said = JSON.stringify(things);
  if (list.said === said) return;
  list.said = said;
  list.replaceChildren(...things.map(made));
}

function item(text) {
  const made = document.createElement("li");
  made.textContent = text;
  return made;
}

function happeningItem(happening) {
  const made = document.createElement("li");
  made.appendChild(document.createElement("time")).textContent = clock(happening.at);
  made.appendChild(document.createElement("span")).textContent = happening.text;
  return made;
}

const clock = (time) => new Date(time).toLocaleTimeString([], {hour12: false});
const span2 = (milliseconds) => {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
};

function tellTrouble(frame) {
  const told = frame.troubles.map((each) => `${each.what} not followed since ${clock(each.since)}: ${each.problem}`);
  if (lostSince !== null) told.unshift(`warmnode page is not reached since ${clock(lostSince)}: is it still running?`);
  const element = $("trouble");
  const text = told.join("; ");
  if (element.textContent !== text) element.textContent = text;
  element.hidden = !text;
}

// -- what comes in ----------------------------------------------------------------------------------------------------

function follow() {
  const source = new EventSource("events");
  let isFirst = true;
  source.onmessage = (event) => {
    lastContact = Date.now();
    lostSince = null;
    const frame = JSON.parse(event.data);
    if (isFirst) {
      live = empty();
      isFirst = false;
    }
    take(live, frame);
    if (!past) for (const column of frame.columns) dirty.add(column.uid);
    if (Date.now() - drawnAll > 10000) redraw(); // ages are written in words, and go on
    else schedule();
  };
  source.onerror = () => {
    lostSince = lostSince ?? lastContact;
    isFirst = true; // it connects again by itself, and is sent everything then
    if (live.frame) tellTrouble(shown().frame);
  };
}

let asked = 0;

async function goBack() {
  const ago = -Number($("time").value);
  const mine = ++asked;
  let model = null;
  if (ago > 0) {
    const answer = await fetch(`past?ago=${ago}`);
    if (!answer.ok) return;
    model = empty();
    take(model, await answer.json());
  }
  if (mine !== asked) return; // the slider has moved on
  past = model;
  redraw();
}

function redraw() {
  drawnAll = Date.now();
  for (const uid of shown().columns.keys()) dirty.add(uid);
  schedule();
}

// -- what people do ---------------------------------------------------------------------------------------------------

function choose(node, pod) {
  const before = chosen;
  chosen = node ? {node, pod} : null;
  for (const each of [before, chosen]) if (each) dirty.add(each.node);
  const element = pod ? $(`pod-${pod}`) : $(`node-${node}`);
  grid.setAttribute("aria-activedescendant", element ? element.id : "");
  if (element) element.scrollIntoView({block: "nearest", inline: "nearest"});
  schedule();
}

async function explain() {
  if (!chosen) return;
  const meant = chosen;
  const query = chosen.pod ? `pod=${encodeURIComponent(chosen.pod)}` : `node=${encodeURIComponent(chosen.node)}`;
  const answer = await fetch(`explain?${query}`).catch(() => null);
  const text = answer ? await answer.text() : "warmnode page is not reached.";
  if (meant === chosen) $("why").textContent = text; // else something else was chosen meanwhile
}

grid.addEventListener("click", (event) => {
  const node = event.target.closest(".node");
  const cell = event.target.closest(".cell");
  if (node) {
    choose(node.dataset.uid, cell ? cell.dataset.uid : null);
    explain();
  }
});

grid.addEventListener("keydown", (event) => {
  const {order, columns} = shown();
  if (!order.length) return;
  const at = chosen ? Math.max(0, order.indexOf(chosen.node)) : -1;
  const pods = chosen && columns.get(chosen.node) ? columns.get(chosen.node).cells.map((cell) => cell.uid) : [];
  const height = chosen && chosen.pod ? pods.indexOf(chosen.pod) : -1;
  const to = (place) => choose(order[Math.max(0, Math.min(order.length - 1, place))], null);
  const moves = {
    ArrowRight: () => to(at + 1),
    ArrowLeft: () => to(at - 1),
    Home: () => to(0),
    End: () => to(order.length - 1),
    ArrowUp: () => pods.length && choose(chosen.node, pods[Math.min(pods.length - 1, height + 1)]),
    ArrowDown: () => chosen && choose(chosen.node, height > 0 ? pods[height - 1] : null),
    Enter: explain,
    Escape: () => choose(null, null),
  };
  if (moves[event.key]) {
    event.preventDefault();
    moves[event.key]();
  }
});

$("pool").addEventListener("change", redraw);
$("colour").addEventListener("change", () => document.body.classList.toggle("by-key", $("colour").value === "key"));
$("time").addEventListener("input", goBack);
new ResizeObserver(() => {
  if (gridWidth !== grid.clientWidth) {
    gridWidth = grid.clientWidth;
    schedule();
  }
}).observe(grid);
follow();
