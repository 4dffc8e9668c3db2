"""The page of a cluster: one file that loads nothing but /status.json, once a second.

Its policy names its own style and script by their digests and allows no others. The script makes
every text a text node. All that can be seen can be heard: figures are tables and lists, what is
wrong is said when it changes, and bars and lines stand beside their numbers.
"""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from html import escape

from engine.web.page_script import SCRIPT

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f8f7f4; --card: #ffffff; --ink: #1b1f26; --faint: #59616e; --line: #e2dfd8;
  --rail: #e9e6df; --write: #1f5fc4; --read: #a34d00; --wash: 12%;
  --good: #18713a; --care: #8a5a00; --bad: #bb2a25;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e24; --ink: #e8e6e1; --faint: #a0a7b3; --line: #2d323b;
    --rail: #303641; --write: #84b4ff; --read: #f0a868; --wash: 16%;
    --good: #66c98a; --care: #e3b554; --bad: #ff8c84;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: clamp(1rem, 4vw, 2.75rem); max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}
h1, h2, p, dl, dd, figure { margin: 0; }
h1 { font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
h1 span { color: var(--faint); font-weight: 400; }
h2 { font-size: 1rem; font-weight: 600; }
a { color: inherit; text-underline-offset: .2em; }
a:focus-visible, [tabindex]:focus-visible {
  outline: 2px solid var(--write); outline-offset: 3px; border-radius: 3px;
}
code { font: .92em ui-monospace, SFMono-Regular, Menlo, "DejaVu Sans Mono", monospace; }
.small { font-size: .84rem; color: var(--faint); }

#verdict { display: flex; gap: .8rem; margin: 1.1rem 0 1.6rem; min-height: 2rem; }
#verdict svg { flex: none; width: 1.1rem; height: 1.1rem; margin-top: .42rem; fill: var(--faint); }
#verdict p { font-size: clamp(1.2rem, 3.6vw, 1.55rem); line-height: 1.3; font-weight: 600;
  letter-spacing: -.01em; text-wrap: balance; }
#verdict p + p { font-size: 1rem; line-height: 1.45; font-weight: 400; letter-spacing: 0;
  margin-top: .3rem; }
.good #verdict svg { fill: var(--good); } .good #verdict .g { display: inline; }
.care #verdict svg { fill: var(--care); } .care #verdict .c { display: inline; }
.bad #verdict svg { fill: var(--bad); } .bad #verdict .b { display: inline; }
#verdict svg > * { display: none; }
.bad #verdict p:first-child { color: var(--bad); }
.stale main { opacity: .8; filter: grayscale(1); }

.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(6.4rem, 1fr));
  gap: .9rem 1rem; padding: 1rem 0; border-block: 1px solid var(--line); }
.facts dt { font-size: .84rem; color: var(--faint); }
.facts dd { font-size: 1.15rem; font-weight: 600; letter-spacing: -.01em; }

section { margin-top: 2rem; }
.head { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; align-items: baseline; }
.head h2 { margin-right: auto; }
.key { font-size: .9rem; color: var(--faint); white-space: nowrap; }
.key b { color: var(--ink); font-weight: 600; }
.key::before { content: ""; display: inline-block; width: 1rem; height: 0; margin-right: .45rem;
  border-top: 3px solid; vertical-align: .22em; }
.key.w::before { border-color: var(--write); }
.key.r::before { border-color: var(--read); border-top-style: dashed; }
#chart { display: block; width: 100%; height: 150px; margin-top: .7rem; }
#chart text { font-size: 12px; fill: var(--faint); }
#chart .grid { stroke: var(--line); shape-rendering: crispEdges; }
#chart .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
#chart .w { stroke: var(--write); } #chart .r { stroke: var(--read); stroke-dasharray: 5 3; }
#chart .wash { stroke: none; fill: color-mix(in srgb, var(--write) var(--wash), transparent); }

.scroll { overflow-x: auto; margin-top: .7rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .65rem .8rem; text-align: left; vertical-align: top; }
thead th { padding-block: .5rem; font-size: .84rem; font-weight: 400; color: var(--faint);
  white-space: nowrap; }
tbody tr { border-top: 1px solid var(--line); }
tbody th { font-weight: 600; }
td > b, th > b { display: block; font-weight: 600; white-space: nowrap; }
td > small, th > small { display: block; font-size: .84rem; font-weight: 400; color: var(--faint);
  white-space: nowrap; }
#slow-rows b, #slow-rows small { white-space: normal; overflow-wrap: anywhere;
  unicode-bidi: isolate; }
#slow-rows td:nth-child(-n + 3) > b { white-space: nowrap; }
#slow-rows td:last-child { width: 45%; }
.leader td:nth-child(2) > b { color: var(--good); }
.gone th > b, .gone td:nth-child(2) > b { color: var(--bad); }
.gone td:nth-child(n + 3) > b { font-weight: 400; color: var(--faint); }
.gone .bar { display: none; }
.bar { display: block; width: 100%; max-width: 7rem; height: 4px; margin: .25rem 0 .1rem;
  border-radius: 2px; background: var(--rail); overflow: hidden; }
.bar > i { display: block; height: 100%; width: 0; border-radius: 2px; background: var(--good); }
.bar.far > i { background: var(--care); }
footer { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; margin-top: 1.6rem; }
@media (max-width: 52rem) {
  .scroll { background: none; border: 0; overflow: visible; }
  table, tbody { display: block; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tbody tr { display: grid; grid-template-columns: 1fr 1fr; background: var(--card);
    border: 1px solid var(--line); border-radius: 10px; margin-top: .7rem; padding: .35rem 0; }
  tbody th, tbody td { padding: .35rem .8rem; min-width: 0; }
  tbody td::before, tbody th::before { content: attr(data-of); display: block; font-size: .84rem;
    font-weight: 400; color: var(--faint); }
  td > b, td > small, th > small { white-space: normal; }
  tbody .gone td:nth-child(n + 3) { display: none; }
  tbody td:last-child { grid-column: 1 / -1; }
  #slow-rows td:last-child { width: auto; }
}
@media (max-width: 52rem) and (min-width: 34rem) {
  tbody tr { grid-template-columns: 1fr 1fr 1fr 1fr; }
  #rows td:last-child { grid-column: auto; }
}
"""

BODY = """\
<body>
<h1>@@NAME@@ <span>· engine kv</span></h1>
<div id="verdict">
<svg viewBox="0 0 16 16" aria-hidden="true"><circle class="g" cx="8" cy="8" r="7"/>
<path class="c" d="M8 1 16 15H0Z"/><path class="b" d="M1 1h14v14H1Z"/></svg>
<div id="sentences" role="status"><p>Looking …</p></div>
</div>
<noscript><p>This page needs JavaScript. <code>engine kv status</code> says the same, and
<a href="/status.json">/status.json</a> has all of it.</p></noscript>
<main>
<dl class="facts" id="facts" aria-label="The store"></dl>
<section aria-labelledby="speed">
<div class="head"><h2 id="speed">Requests answered a second</h2>
<p class="key w">writes <b id="writes">–</b></p><p class="key r">reads <b id="reads">–</b></p></div>
<svg id="chart" role="img" aria-label="No requests yet"></svg>
</section>
<section aria-labelledby="replicas">
<h2 id="replicas">Replicas</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="replicas">
<table role="table" aria-labelledby="replicas">
<thead role="rowgroup"><tr role="row" id="columns"></tr></thead>
<tbody role="rowgroup" id="rows"></tbody>
</table>
</div>
</section>
<section aria-labelledby="slow">
<h2 id="slow">Slow requests</h2>
<p class="small" id="slow-none">None took longer than 100 ms.</p>
<div class="scroll" id="slow-there" tabindex="0" role="region" aria-labelledby="slow" hidden>
<table role="table" aria-labelledby="slow">
<thead role="rowgroup"><tr role="row" id="slow-columns"></tr></thead>
<tbody role="rowgroup" id="slow-rows"></tbody>
</table>
</div>
</section>
</main>
<footer class="small"><span id="time"></span>
<a href="/status.json">as JSON</a><a href="/metrics">for Prometheus</a></footer>
"""


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_digest(SCRIPT)}; style-src {_digest(STYLE)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def page(folder: str) -> bytes:
    """For the cluster of this folder."""
    name = escape(os.path.basename(os.path.abspath(folder)))
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{name}</title>\n<style>{STYLE}</style>\n</head>\n"
    )
    body = BODY.replace("@@NAME@@", name)
    text = f"{head}{body}<script>{SCRIPT}</script>\n</body>\n</html>\n"
    return text.encode("utf-8", "replace")  # a folder may be called what is no text
