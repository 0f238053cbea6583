"""The materials of the page: its frame, style sheet and script, and how text becomes HTML.

Text from outside is escaped here or at the call; a *cell* is HTML already. Figures travel as JSON in
which `<`, `>` and `&` are escaped, so no data can end the script that holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

Row = Sequence[str]
"""Cells of a table, as HTML."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
<noscript><p class="callout warn">The plots need JavaScript; every caption says in words what its
plot shows.</p></noscript>
<script>$plotly</script>
<script>const FIGURES = [
$figures
];
$script</script>
</body>
</html>
"""

SCRIPT = """
const CONFIG = {responsive: true, displayModeBar: false, scrollZoom: false};
FIGURES.forEach((figure, i) => {
  const place = document.getElementById('plot-' + i);
  Plotly.newPlot(place, figure.data, figure.layout, CONFIG)
    .then(() => place.classList.add('drawn'));
});
"""

STYLE = """
:root { --ink: #1f2933; --soft: #52606d; --line: #d8dde3; --wash: #f5f7f9; --blue: #0072b2;
  --warn: #8a5f00; --warn-wash: #fff8e6; --bad: #a34700; --bad-wash: #fdf0e8; --ok: #00684c; }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: #fff; color: var(--ink); font-size: 16px; line-height: 1.55;
  font-family: -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans",
  Arial, sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1200px; margin: 0 auto; padding: 40px 36px 64px; }
h1, h2, h3 { line-height: 1.2; font-weight: 650; letter-spacing: -0.01em; }
h1 { font-size: 34px; margin: 0 0 6px; }
h2 { font-size: 24px; margin: 56px 0 12px; padding-top: 18px; border-top: 2px solid var(--ink); }
h3 { font-size: 17px; margin: 34px 0 8px; }
p, li, figcaption { text-wrap: pretty; }
p { max-width: 78ch; margin: 0 0 12px; }
a { color: var(--blue); text-decoration-thickness: 1px; text-underline-offset: 2px; }
code { font: 13px/1.4 ui-monospace, "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; }
.index { color: var(--blue); margin-right: 12px; }
.subtitle { font-size: 18px; color: var(--soft); }
.verdict { font-size: 19px; line-height: 1.45; max-width: 66ch; margin: 22px 0 18px;
  padding: 2px 0 2px 20px; border-left: 4px solid var(--blue); list-style: none; }
.verdict li + li { margin-top: 8px; }
.note, .foot, .small, figcaption { color: var(--soft); font-size: 14px; line-height: 1.45; }
.foot { margin-top: 8px; }
.tiles { display: grid; gap: 12px; margin-top: 12px;
  grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); }
.tile { border: 1px solid var(--line); border-top: 3px solid var(--blue); border-radius: 4px;
  padding: 12px 16px 14px; background: #fff; min-width: 0; overflow-wrap: anywhere; }
.tile .name { font-size: 13px; font-weight: 600; color: var(--soft); }
.tile .figure { font-size: 27px; font-weight: 650; letter-spacing: -0.02em; line-height: 1.3;
  margin: 2px 0 4px; }
.tile.warn { border-top-color: #e69f00; background: var(--warn-wash); }
.tile.bad { border-top-color: #d55e00; background: var(--bad-wash); }
nav { margin-top: 22px; font-size: 15px; }
figure { margin: 18px 0 10px; min-width: 0; break-inside: avoid; }
figcaption { max-width: 100ch; padding: 6px 0 0; }
figcaption b { color: var(--ink); }
.plot { width: 100%; }
.pair { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 7fr); gap: 36px;
  align-items: start; margin-top: 14px; }
.pair > figure { margin-top: 0; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; margin: 8px 0; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink); padding: 6px 14px 6px 0; }
td { border-bottom: 1px solid var(--line); padding: 7px 14px 7px 0; vertical-align: top;
  overflow-wrap: anywhere; }
th.number, td.number { text-align: right; white-space: nowrap; }
th:last-child, td:last-child { padding-right: 0; }
table.narrow { width: auto; } table.narrow th, table.narrow td { padding-right: 28px; }
table.stages { max-width: 760px; } table.stages td:nth-child(2) { width: 60%; }
.bar { height: 12px; margin-top: 5px; background: var(--blue); border-radius: 2px;
  min-width: 2px; }
.callout { border-left: 4px solid var(--blue); background: var(--wash); padding: 10px 16px;
  margin: 12px 0; max-width: 84ch; }
.callout.warn { border-left-color: #e69f00; background: var(--warn-wash); }
.callout p { margin: 0 0 4px; } .callout ul { margin: 0; padding-left: 20px; }
.empty { color: var(--soft); font-style: italic; }
.ok { color: var(--ok); font-weight: 600; white-space: nowrap; }
.no { color: var(--bad); font-weight: 700; white-space: nowrap; }
details { margin-top: 10px; } summary { cursor: pointer; color: var(--blue); }
.scroll { max-height: 460px; overflow-y: auto; border-bottom: 1px solid var(--line); }
.scroll th { position: sticky; top: 0; background: #fff; }
@media (max-width: 860px) { main { padding: 24px 16px; } .pair { grid-template-columns: 1fr; }
  h1 { font-size: 27px; } table { font-size: 13px; } th.number, td.number { white-space: normal; } }
@media print { .scroll { max-height: none; } nav { display: none; } }
"""


class Plots:
    """Collects figures: gives each a place in the page, and all their data as one script."""

    def __init__(self) -> None:
        self._json: list[str] = []

    def place(self, figure: Any, name: str, caption: str) -> str:
        """The `<figure>` with its caption, which is also what a screen reader reads."""
        number = len(self._json)
        text: str = figure.to_json()
        for sign, code in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
            text = text.replace(sign, code)
        self._json.append(text)
        height = int(figure.layout.height)
        return (
            f'<figure><div class="plot" id="plot-{number}" style="height:{height}px" role="img" '
            f'aria-label="{escape(name)}"></div>'
            f"<figcaption><b>{escape(name)}.</b> {escape(caption)}</figcaption></figure>"
        )

    def script(self) -> str:
        return ",\n".join(self._json)


def element(tag: str, inner: str, css: str = "") -> str:
    return f'<{tag} class="{css}">{inner}</{tag}>' if css else f"<{tag}>{inner}</{tag}>"


def table(heads: Row, rows: Iterable[Row], *, words: int = 1, css: str = "") -> str:
    """A table of HTML cells; the first `words` columns are text, the others numbers."""

    def cells(tag: str, row: Row) -> str:
        return "".join(
            element(tag, cell, "" if i < words else "number") for i, cell in enumerate(row)
        )

    body = "".join(element("tr", cells("td", row)) for row in rows)
    head = element("tr", cells("th", [escape(h) for h in heads]))
    return f'<table class="{css}"><thead>{head}</thead><tbody>{body}</tbody></table>'


def section(number: int, title: str, *parts: str) -> str:
    head = f'<h2 id="s{number}"><span class="index">{number}</span>{escape(title)}</h2>'
    return element("section", head + "".join(parts))


def paragraph(text: str, css: str = "") -> str:
    return element("p", escape(text), css) if text else ""
