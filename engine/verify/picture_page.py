"""The page that `picture.py` fills in: its looks and its script. `@@NAME@@` is a place to fill.

The script makes every text a text node, and the page may load nothing, so that whatever stands in a
history stays text.
"""

HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Not linearizable: @@NAME@@</title>
"""

STYLE = """\
<style>
:root {
  --page: #fbfbf9; --card: #ffffff; --ink: #1d2430; --faint: #6b7484; --line: #dfe3ea;
  --box: #eef1f6; --edge: #b9c2d0; --in: #dcebfb; --in-edge: #3f7fc4; --dot: #1f5fa8;
  --bad: #fde3e1; --bad-edge: #c62f2a; --dot-ink: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --card: #1b2027; --ink: #e6e9ee; --faint: #98a2b3; --line: #2e3540;
    --box: #262c35; --edge: #4a5463; --in: #1d3a58; --in-edge: #5b9fe0; --dot: #7db8f0;
    --bad: #4d2222; --bad-edge: #f0726b; --dot-ink: #10151c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem clamp(1rem, 4vw, 3rem); background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0 0 .3rem; }
h2 { font-size: 1.05rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
p { margin: 0 0 .7rem; max-width: 75ch; color: var(--faint); overflow-wrap: anywhere; }
a { color: var(--bad-edge); }
section > p::first-letter { text-transform: uppercase; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.1rem 1.2rem; margin-top: 1.2rem; }
.scroll { overflow-x: auto; margin-top: .8rem; }
.legend span { display: inline-block; margin-right: 1.2rem; }
.legend i { display: inline-block; width: 1.1em; height: .8em; margin-right: .4em;
  border-radius: 3px; border: 1.5px solid; }
svg { display: block; font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
svg text { fill: var(--ink); pointer-events: none; }
.client { fill: var(--faint); }
.rule { stroke: var(--line); }
.op { cursor: pointer; outline: none; }
.op rect { fill: var(--box); stroke: var(--edge); stroke-width: 1.3; }
.op.unknown rect { stroke-dasharray: 5 4; }
.op.in rect { fill: var(--in); stroke: var(--in-edge); }
.op.bad rect { fill: var(--bad); stroke: var(--bad-edge); stroke-width: 2.2; }
.op:hover rect, .op:focus-visible rect, .op.chosen rect { stroke-width: 3; }
.path { fill: none; stroke: var(--dot); stroke-width: 1.5; opacity: .55; pointer-events: none; }
.path.bad { stroke: var(--bad-edge); stroke-dasharray: 4 4; opacity: 1; }
.dot { fill: var(--dot); pointer-events: none; }
svg .number { fill: var(--dot-ink); font-size: 10px; text-anchor: middle; }
#tip { position: fixed; display: none; z-index: 2; max-width: 46ch; padding: .55rem .7rem;
  background: var(--card); border: 1px solid var(--edge); border-radius: 7px; font-size: 13px;
  box-shadow: 0 4px 18px rgb(0 0 0 / .22); pointer-events: none; overflow-wrap: anywhere; }
#tip div + div { color: var(--faint); }
</style>
</head>
"""

BODY = """\
<body>
<h1>Not linearizable: @@NAME@@</h1>
<p>A box is an operation, from its call to its return; places are in the order of time, not to its
scale. Numbers are the longest order that one copy explains. Click a box for the longest order that
it is in; point at it for its times and the states.</p>
<p class="legend"><span><i style="background:var(--in);border-color:var(--in-edge)"></i>in the
order</span><span><i style="background:var(--box);border-color:var(--edge)"></i>left
out</span><span><i style="background:var(--bad);border-color:var(--bad-edge)"></i>must
come next, and cannot</span>
<span><i style="border-style:dashed;border-color:var(--edge)"></i>outcome unknown</span></p>
<noscript>
<p>The picture needs JavaScript. In words:</p>
@@SUMMARY@@</noscript>
<main id="keys"></main>
<div id="tip" role="tooltip"></div>
<script type="application/json" id="data">@@DATA@@</script>
"""

SCRIPT = """\
<script>
"use strict";
const STEP = 62, ROW = 50, BOX = 28, TOP = 16, LETTER = 7.3;
const tip = document.getElementById("tip");

function make(name, attributes, parent, text) {
  const svg = ["svg", "g", "rect", "text", "line", "polyline", "circle"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name)
                   : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function cut(text, letters) {
  return text.length <= letters ? text : text.slice(0, Math.max(letters - 1, 0)) + "…";
}

class Picture {
  constructor(key, number) {
    this.key = key;
    this.left = 24 + LETTER * Math.min(24, Math.max(8, ...key.rows.map(row => row.length + 7)));
    this.section = make("section", { id: "key-" + number }, document.getElementById("keys"));
    make("h2", {}, this.section, "Key " + key.key);
    make("p", {}, this.section, key.sentence);
    const jump = make("a", { href: "#key-" + number }, this.section, "Go to the first error");
    jump.addEventListener("click", event => { event.preventDefault(); this.choose(null, true); });
    const scroll = make("div", { class: "scroll" }, this.section);
    this.svg = make("svg", { width: this.left + key.places * STEP + 20,
      height: TOP + key.rows.length * ROW + 10, role: "img", "aria-label": key.sentence }, scroll);
    key.rows.forEach((row, index) => this.row(row, index));
    this.boxes = key.boxes.map((box, index) => this.box(box, index));
    this.over = make("g", {}, this.svg);
    this.choose(null, false);
  }
  x(place) { return this.left + place * STEP; }
  y(row) { return TOP + row * ROW + ROW / 2; }
  row(name, index) {
    if (name !== "") {
      make("line", { class: "rule", x1: 0, x2: this.x(this.key.places) + 20,
        y1: TOP + index * ROW, y2: TOP + index * ROW }, this.svg);
      make("text", { class: "client", x: 4, y: this.y(index) + 4 }, this.svg,
        cut("client " + name, 24));
    }
  }
  box(box, index) {
    const group = make("g", { class: "op", tabindex: 0, role: "button",
      "aria-label": "client " + box.client + " " + box.label }, this.svg);
    const width = Math.max((box.to - box.from) * STEP - 6, STEP - 8);
    make("rect", { x: this.x(box.from) + 3, y: this.y(box.row) - BOX / 2, width, height: BOX,
      rx: 5 }, group);
    make("text", { x: this.x(box.from) + 9, y: this.y(box.row) + 5 }, group,
      cut(box.label, Math.floor((width - 10) / LETTER)));
    group.addEventListener("click", () => this.choose(index, false));
    group.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.choose(index, false);
      }
    });
    group.addEventListener("pointermove", event => this.tell(event, index));
    group.addEventListener("pointerleave", () => { tip.style.display = "none"; });
    return group;
  }
  choose(index, scroll) {
    const which = index === null ? 0 : this.key.longest[index];
    this.order = which === undefined ? { operations: [], states: [], stuck: [index] }
                                     : this.key.orders[which];
    const inside = new Set(this.order.operations), bad = new Set(this.order.stuck);
    this.boxes.forEach((group, at) => {
      const unknown = this.key.boxes[at].unknown ? " unknown" : "";
      const role = bad.has(at) ? " bad" : inside.has(at) ? " in" : "";
      group.setAttribute("class", "op" + unknown + role + (at === index ? " chosen" : ""));
    });
    this.draw();
    if (scroll && this.order.stuck.length) {
      const first = this.boxes[this.order.stuck[0]];
      first.scrollIntoView({ block: "center", inline: "center" });
      first.focus({ preventScroll: true });
    }
  }
  points() {
    let place = 0;
    const points = this.order.operations.map(index => {
      place = Math.max(place, this.key.boxes[index].from);
      return { index, place };
    });
    const sharing = new Map();
    for (const point of points) sharing.set(point.place, (sharing.get(point.place) || 0) + 1);
    const seen = new Map();
    for (const point of points) {
      const turn = seen.get(point.place) || 0;
      seen.set(point.place, turn + 1);
      point.x = this.x(point.place) + 12 + turn * (STEP - 18) / sharing.get(point.place);
      point.y = this.y(this.key.boxes[point.index].row) - BOX / 2;
    }
    return points;
  }
  draw() {
    this.over.replaceChildren();
    const points = this.points();
    make("polyline", { class: "path", points: points.map(p => p.x + "," + p.y).join(" ") },
      this.over);
    const last = points[points.length - 1];
    for (const index of this.order.stuck) {
      const box = this.key.boxes[index];
      if (last) make("line", { class: "path bad", x1: last.x, y1: last.y,
        x2: this.x(box.from) + 3, y2: this.y(box.row) - BOX / 2 }, this.over);
    }
    points.forEach((point, turn) => {
      make("circle", { class: "dot", cx: point.x, cy: point.y, r: 8.5 }, this.over);
      make("text", { class: "number", x: point.x, y: point.y + 3.5 }, this.over, turn + 1);
    });
  }
  tell(event, index) {
    const box = this.key.boxes[index], turn = this.order.operations.indexOf(index);
    const lines = ["client " + box.client + ": " + box.label, box.time];
    const before = at => at === 0 ? this.key.initial : this.order.states[at - 1];
    if (turn >= 0) {
      lines.push("number " + (turn + 1) + ": from " + before(turn) + " to "
        + this.order.states[turn]);
    } else if (this.order.stuck.includes(index)) {
      lines.push("cannot come next: the state is " + before(this.order.operations.length));
    } else {
      lines.push("not in this order");
    }
    tip.replaceChildren(...lines.map(line => make("div", {}, null, line)));
    tip.style.display = "block";
    const room = tip.getBoundingClientRect();
    tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - room.width - 8)) + "px";
    tip.style.top = (event.clientY + 18 + room.height > innerHeight
      ? Math.max(4, event.clientY - room.height - 10) : event.clientY + 18) + "px";
  }
}

JSON.parse(document.getElementById("data").textContent)
  .forEach((key, number) => new Picture(key, number));
</script>
</body>
</html>
"""

PAGE = HEAD + STYLE + BODY + SCRIPT
