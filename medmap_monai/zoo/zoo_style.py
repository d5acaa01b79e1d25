"""How the pages of a zoo look."""

from __future__ import annotations

from html import escape

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{line-height:1.2}h3{margin:0}a{color:#0969da}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #d0d7de;padding:.3rem .7rem;text-align:left;
vertical-align:top}pre{background:#f6f8fa;padding:.7rem;overflow-x:auto;white-space:pre-wrap;overflow-wrap:anywhere}
code{font-size:.9em;overflow-wrap:anywhere}.wide{overflow-x:auto}figure{margin:0 0 1rem;max-width:46rem}
figcaption,small{color:#57606a;font-size:.85rem}img,svg{max-width:100%;height:auto}
.bundle{display:grid;grid-template-columns:minmax(0,26rem) minmax(0,1fr);gap:1.5rem;border:1px solid #d0d7de;
border-radius:8px;padding:1rem;margin:1rem 0}.bundle p{margin:.4rem 0}
.evidence{font-weight:600}p.evidence{display:inline-block;border-radius:1rem;padding:.1rem .8rem;margin:.2rem 0}
.weights{background:#dafbe1;color:#0a4d1c}.recipe{background:#eaeef2;color:#1b1f24}
td.dot{text-align:center;color:#57606a}
td.bar{min-width:5rem;background:linear-gradient(90deg,#cfe3f1 var(--share),transparent 0)}
@media(max-width:50rem){.bundle{grid-template-columns:minmax(0,1fr)}}
"""


def html_page(title: str, body: str) -> str:
    """A page of its own: nothing is loaded from elsewhere, and there are no scripts."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
