"""What the page of a cluster does, in the browser's own language."""

from __future__ import annotations

SCRIPT = r"""
"use strict";
const EVERY = 1000, PATIENCE = 4000, OLD = 5, NAME = document.title;
const COLUMNS = ["Replica", "Role", "Log", "Applied", "Disk", "Memory", "Slow turns"];
const SLOW = ["Over at", "Took", "Waited for", "Client", "Request"];
const byId = id => document.getElementById(id);

// --- words --------------------------------------------------------------------------------------

const number = value => value == null ? "–" : Math.round(value).toLocaleString("en");
const plural = (many, what) => number(many) + " " + what + (many === 1 ? "" : "s");

function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < 4; at++) value /= 1000;
  return (at && value < 10 ? value.toFixed(1) : Math.round(value)) + "\u00a0" + units[at];
}

function span(seconds) {
  const [days, hours, minutes] = [86400, 3600, 60].map(one => Math.floor(seconds / one));
  if (days) return days + " d " + hours % 24 + " h";
  if (hours) return hours + " h " + minutes % 60 + " min";
  return minutes ? minutes + " min" : seconds + " s";
}

const clock = date => date.toLocaleTimeString("en-GB");

// --- small tools --------------------------------------------------------------------------------

/* Only what has changed is touched: whoever reads or has marked a text is not disturbed. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function put(element, attribute, value) {
  if (element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
}

function make(parent, name, attributes = {}, text) {
  const made = document.createElementNS(parent.namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

/* As many children as texts; the texts into them. */
function list(parent, name, texts) {
  while (parent.children.length > texts.length) parent.lastChild.remove();
  while (parent.children.length < texts.length) make(parent, name);
  texts.forEach((text, index) => say(parent.children[index], text));
}

// --- the verdict --------------------------------------------------------------------------------

function verdict(level, sentences) {
  document.body.className = level;
  const parent = byId("sentences");
  if ([...parent.children].map(one => one.textContent).join("\n") !== sentences.join("\n"))
    list(parent, "p", sentences);
  const mark = { good: "", care: "▲ ", bad: "■ " }[level] ?? "";
  const title = mark + NAME;
  if (document.title !== title) document.title = title;
}

function facts(told) {
  const { keys, state_bytes, sessions, leases, watchers } = told.figures;
  const rows = [
    ["Leader", told.leader === null ? "nobody" : "replica " + told.leader],
    ["Term", number(told.term)], ["Revision", number(told.revision)], ["Keys", number(keys)],
    ["State", bytes(state_bytes)], ["Sessions", number(sessions)], ["Leases", number(leases)],
    ["Watches", number(watchers)],
  ];
  const parent = byId("facts");
  if (!parent.children.length)
    for (const [name] of rows) {
      const pair = make(parent, "div");
      make(pair, "dt", {}, name);
      make(pair, "dd");
    }
  rows.forEach(([, value], index) => say(parent.children[index].lastChild, value));
}

// --- replicas -----------------------------------------------------------------------------------

/* [what, more, how far behind or nothing] for each column. */
function cells(one) {
  const id = [String(one.id), one.reachable ? "pid " + one.pid : ""];
  if (!one.reachable) return [id, ["does not answer", seat(one)], ...Array(5).fill(["–", ""])];
  const role = one.seat === "voter" ? one.role : seat(one);
  const more = [];
  if (one.lost) more.push("repairs its log");
  if (one.full) more.push("disk full");
  const slow = one.counters.slow_turns ?? 0, turns = one.counters.turns ?? 0;
  const cpu = one.cpu == null ? "" : Math.round(one.cpu * 100) + " % of a core";
  return [
    id,
    [role, ["term " + number(one.term), "up " + span(one.up_seconds), ...more].join(", ")],
    [number(one.last), behind(one.log_behind), one.log_behind],
    [number(one.applied), behind(one.applied_behind), one.applied_behind],
    [bytes(one.disk_bytes), "log " + bytes(one.log_bytes)],
    [bytes(one.resident_bytes), cpu],
    [number(slow), "of " + number(turns)],
  ];
}

const seat = one => ({ learner: "learner, no vote yet", none: "no member" })[one.seat] ?? "";
const behind = many => many ? number(many) + " behind" : "up to date";

function replicas(told) {
  const head = byId("columns"), body = byId("rows");
  if (!head.children.length)
    for (const name of COLUMNS) make(head, "th", { role: "columnheader", scope: "col" }, name);
  const rows = new Map([...body.children].map(row => [row.dataset.id, row]));
  for (const one of told.replicas) {
    const row = rows.get(String(one.id)) ?? newRow(body, one.id);
    rows.delete(String(one.id));
    if (row.parentNode.lastChild !== row) body.append(row);
    put(row, "class", !one.reachable ? "gone" : one.role === "leader" ? "leader" : "");
    cells(one).forEach((texts, index) => fill(row.children[index], texts));
  }
  for (const row of rows.values()) row.remove();
}

function newRow(body, id) {
  const row = make(body, "tr", { role: "row", "data-id": id });
  COLUMNS.forEach((name, index) => {
    const cell = index
      ? make(row, "td", { role: "cell", "data-of": name })
      : make(row, "th", { role: "rowheader", scope: "row", "data-of": name });
    make(cell, "b");
    if (name === "Log" || name === "Applied")
      make(make(cell, "span", { class: "bar", "aria-hidden": "true" }), "i");
    make(cell, "small");
  });
  return row;
}

function fill(cell, [what, more, far]) {
  say(cell.querySelector("b"), what);
  say(cell.querySelector("small"), more);
  const bar = cell.querySelector(".bar");
  if (!bar) return;
  /* Full when all is there; each factor of ten behind takes a sixth of it. */
  const width = far === undefined ? 0 : Math.max(4, 100 - Math.log10(1 + far) * 100 / 6);
  bar.firstChild.style.width = width.toFixed(1) + "%";
  bar.classList.toggle("far", far > 10000);
}

// --- slow requests ------------------------------------------------------------------------------

/* Nothing of a row changes once it is there: what was, was. */
function slow(told) {
  const head = byId("slow-columns"), body = byId("slow-rows");
  if (!head.children.length)
    for (const name of SLOW) make(head, "th", { role: "columnheader", scope: "col" }, name);
  const rows = new Map([...body.children].map(row => [row.dataset.id, row]));
  told.slow.forEach((one, at) => {
    const id = [one.replica, one.pid, one.number].join("/");
    const row = rows.get(id) ?? slowRow(body, id, one);
    rows.delete(id);
    if (body.children[at] !== row) body.insertBefore(row, body.children[at]);
  });
  for (const row of rows.values()) row.remove();
  byId("slow-there").hidden = !told.slow.length;
  byId("slow-none").hidden = told.slow.length > 0;
}

function slowRow(body, id, one) {
  const row = make(body, "tr", { role: "row", "data-id": id });
  const key = one.key === null ? "key not shown: --show-keys" : one.key;
  const cells = [
    [clock(new Date(Date.now() - one.seconds_ago * 1000)), "replica " + one.replica],
    [number(one.took_ms) + "\u00a0ms", one.ended === "unknown" ? "outcome unknown" : one.ended],
    [one.waited, one.others ? plural(one.others, "more request") + " with it" : ""],
    [one.client, one.session ? "session " + one.session : ""],
    [one.verb, key],
  ];
  cells.forEach(([what, more], index) => {
    const cell = make(row, "td", { role: "cell", "data-of": SLOW[index] });
    make(cell, "b", {}, what);
    make(cell, "small", {}, more);
  });
  return row;
}

// --- the chart ----------------------------------------------------------------------------------

function ceiling(value) {
  if (value <= 10) return 10;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map(one => one * power).find(one => one >= value);
}

let speeds = null;

function chart() {
  if (!speeds) return;
  const svg = byId("chart"), width = svg.clientWidth, height = svg.clientHeight, foot = 20;
  const { before, writes, reads, kept_seconds: kept } = speeds;
  const most = Math.max(...writes, ...reads, 0), high = ceiling(most);
  const left = 8 + 7 * number(high).length, floor = height - foot;
  const x = seconds => left + (width - left) * (1 - seconds / kept);
  const y = value => floor - (floor - 12) * value / high;
  svg.replaceChildren();
  put(svg, "viewBox", `0 0 ${width} ${height}`);
  for (const value of [0, high / 2, high]) {
    const at = Math.round(y(value)) + .5;
    make(svg, "line", { class: "grid", x1: left, x2: width, y1: at, y2: at });
    const word = { x: left - 6, y: at + 4, "text-anchor": "end" };
    make(svg, "text", word, number(value));
  }
  make(svg, "text", { x: left, y: height - 4 }, span(kept) + " ago");
  make(svg, "text", { x: width, y: height - 4, "text-anchor": "end" }, "now");
  const areas = path(before, writes, x, y, floor), lines = path(before, writes, x, y);
  make(svg, "path", { class: "wash", d: areas });
  make(svg, "path", { class: "line w", d: lines });
  make(svg, "path", { class: "line r", d: path(before, reads, x, y) });
  say(byId("writes"), number(writes.at(-1)));
  say(byId("reads"), number(reads.at(-1)));
  put(svg, "aria-label", `Writes: ${number(writes.at(-1))} a second now, at most `
    + `${number(Math.max(...writes, 0))} in the last five minutes. Reads: `
    + `${number(reads.at(-1))} now, at most ${number(Math.max(...reads, 0))}.`);
}

/* A line through what is known, with gaps; down to `floor` and closed if that is given. */
function path(before, values, x, y, floor) {
  let text = "", begun = null, last = null;
  const close = () => {
    if (begun !== null && floor !== undefined) text += `L${last},${floor}L${begun},${floor}Z`;
    begun = null;
  };
  values.forEach((value, index) => {
    if (value === null) return close();
    last = x(before[index]).toFixed(1);
    text += (begun === null ? "M" : "L") + last + "," + y(value).toFixed(1);
    begun ??= last;
  });
  close();
  return text;
}

new ResizeObserver(chart).observe(byId("chart"));

// --- asking -------------------------------------------------------------------------------------

let heard = null;

function show(told) {
  if (told.age > OLD) {
    stale("nobody looks at the replicas any more");
    return;
  }
  heard = new Date();
  verdict(told.level, told.sentences);
  facts(told);
  speeds = told.speeds;
  chart();
  replicas(told);
  slow(told);
  say(byId("time"), "Looked at " + clock(heard) + ", every second.");
}

function stale(why) {
  const since = heard ? "Stale since " + clock(heard) : "Nothing to show";
  verdict("care stale", [since + ": " + why + "."]);
}

async function look() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/status.json", { signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.json());
    } catch (error) {
      if (!["TypeError", "TimeoutError", "AbortError", "Error"].includes(error.name)) throw error;
      stale("the process that serves this page does not answer");
    }
  }
  setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => { if (heard) chart(); });
look();
"""
