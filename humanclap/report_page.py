"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Part:
    """One part of the page: a heading, a text, and any of a table, a figure and clips (caption -> audio file)."""

    heading: str
    text: str = ""
    table: pd.DataFrame | None = None
    figure: Figure | None = None
    clips: Mapping[str, Path] | None = None


_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 0.9rem } th, td { padding: 0.2rem 0.7rem; border-bottom: 1px solid #ddd;
text-align: left } img { max-width: 100% } figure { margin: 0.6rem 0 } audio { vertical-align: middle }
.table { overflow-x: auto } .data { color: #666 }
</style></head><body><h1>{{ title }}</h1><p class="data">Data: {{ label }}</p>
{% for part in parts %}<h2>{{ part.heading }}</h2>{% if part.text %}<p>{{ part.text }}</p>{% endif %}
{% if part.table is not none %}<div class="table">{{ part.table | safe }}</div>{% endif %}
{% if part.figure %}<figure><img alt="{{ part.heading }}" src="data:image/png;base64,{{ part.figure }}"></figure>
{% endif %}{% for caption, clip in part.clips %}<figure>{{ caption }}<br>
{% if clip %}<audio controls src="{{ clip }}"></audio>
{% else %}(too large to be put in here){% endif %}</figure>{% endfor %}{% endfor %}</body></html>
"""
_MOST_BYTES = 3_000_000  # of one clip; the page goes by e-mail
_MEDIA_TYPES = {".mp3": "audio/mpeg", ".flac": "audio/flac", ".ogg": "audio/ogg"}


def write_page(path: str | Path, title: str, label: str, parts: Sequence[Part]) -> Path:
    """Write one HTML file that needs nothing beside it: tables, figures and clips are inside."""
    from jinja2 import Environment

    shown = [
        {
            "heading": part.heading,
            "text": part.text,
            "table": None if part.table is None else part.table.to_html(index=False, border=0, na_rep="–"),
            "figure": None if part.figure is None else _png(part.figure),
            "clips": [(caption, _sound(clip)) for caption, clip in (part.clips or {}).items()],
        }
        for part in parts
    ]
    page = Environment(autoescape=True).from_string(_PAGE).render(title=title, label=label, parts=shown)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _png(figure: Figure) -> str:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return base64.b64encode(picture.getvalue()).decode()


def _sound(path: Path) -> str | None:
    if path.stat().st_size > _MOST_BYTES:
        return None
    kind = _MEDIA_TYPES.get(path.suffix.lower(), "audio/wav")
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
