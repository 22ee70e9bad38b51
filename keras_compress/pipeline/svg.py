"""Figures as SVG elements that take colours and fonts from the page around them."""

import io
import re
import warnings

# Matplotlib draws in these; the page says which colour each role has.
ROLES = {
    "ink": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "first": "#040404",
    "last": "#050505",
    "between": "#060606",
    "card": "#070707",
}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": ROLES["ink"],
    "axes.edgecolor": ROLES["grid"],
    "axes.labelcolor": ROLES["muted"],
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": ROLES["grid"],
    "ytick.color": ROLES["grid"],
    "xtick.labelcolor": ROLES["muted"],
    "ytick.labelcolor": ROLES["muted"],
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "grid.color": ROLES["grid"],
    "grid.linewidth": 0.7,
}


def svg(name: str, label: str, draw, *, width: float = 4.4, height: float = 3.4) -> str:
    """One SVG element.

    Args:
        name: Begins the ids in it, so that no other figure of the page has them.
        label: What it shows, for those who do not see it.
        draw: `draw(axes)` draws it.
        width: In inches of 72 units of the SVG.
        height: Likewise.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # The browser has other fonts than Matplotlib, which only measures the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
        # It measures text, which the canvas of SVG files cannot.
        FigureCanvasAgg(figure)
        draw(figure.subplots())
        text = io.StringIO()
        unset = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=unset)
    return _embedded(text.getvalue(), name, label)


def _embedded(text: str, name: str, label: str) -> str:
    from markupsafe import escape

    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    for role, colour in ROLES.items():
        text = text.replace(colour, f"var(--{role})")
    # The page gives it its width; the height follows.
    head = re.sub(r' (width|height)="[^"]*"', "", text[: text.index(">")])
    return f'{head} role="img" aria-label="{escape(label)}"{text[text.index(">") :]}'
