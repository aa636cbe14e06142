"""The look of every page as one thing to hand to a mount: our own theme, the style sheet and the page scripts.

Nothing here may load from outside: system fonts only, no web fonts, no images. Must not know services, people or models.
"""

from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.themes.utils import colors, sizes

HERE = Path(__file__).parent
DESK_SCRIPTS = ("wire.js", "diff.js", "chips.js", "scene.js", "desk.js", "keys.js")
SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Liberation Sans", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

PINE = colors.Color(
    name="pine",
    c50="#eef7f5", c100="#d9eeea", c200="#b3ddd5", c300="#84c7bc", c400="#4dab9e", c500="#258c80",
    c600="#13716a", c700="#115c57", c800="#124a46", c900="#123d3a", c950="#08211f",
)  # fmt: skip
STONE = colors.Color(
    name="stone-ink",
    c50="#f7f7f5", c100="#efefec", c200="#dfdfda", c300="#c6c6c0", c400="#96978f", c500="#686a63",
    c600="#52544e", c700="#3c3e3a", c800="#272927", c900="#1b1d1c", c950="#131514",
)  # fmt: skip


class Tiebreak(gr.themes.Base):
    """Calm and dense. Every colour is a variable of look.css, which holds the light and the dark value once."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=PINE, secondary_hue=PINE, neutral_hue=STONE,
            text_size=sizes.text_md, spacing_size=sizes.spacing_md, radius_size=sizes.radius_md,
            font=SANS, font_mono=MONO,
        )  # fmt: skip
        self.name = "tiebreak"
        both: dict[str, str] = {
            "body_background_fill": "var(--tb-page)",
            "body_text_color": "var(--tb-ink)",
            "body_text_color_subdued": "var(--tb-muted)",
            "background_fill_primary": "var(--tb-surface)",
            "background_fill_secondary": "var(--tb-page)",
            "border_color_primary": "var(--tb-line)",
            "border_color_accent": "var(--tb-accent)",
            "color_accent_soft": "var(--tb-accent-soft)",
            "link_text_color": "var(--tb-accent)",
            "link_text_color_hover": "var(--tb-accent)",
            "link_text_color_active": "var(--tb-accent)",
            "link_text_color_visited": "var(--tb-accent)",
            "block_background_fill": "var(--tb-surface)",
            "block_border_color": "var(--tb-line)",
            "block_info_text_color": "var(--tb-muted)",
            "block_label_background_fill": "transparent",
            "block_label_text_color": "var(--tb-ink)",
            "block_label_border_color": "transparent",
            "block_title_text_color": "var(--tb-ink)",
            "input_background_fill": "var(--tb-field)",
            "input_background_fill_focus": "var(--tb-field)",
            "input_border_color": "var(--tb-field-line)",
            "input_border_color_focus": "var(--tb-accent)",
            "input_placeholder_color": "var(--tb-muted)",
            "panel_background_fill": "var(--tb-surface)",
            "panel_border_color": "var(--tb-line)",
            "table_border_color": "var(--tb-line)",
            "table_even_background_fill": "var(--tb-surface)",
            "table_odd_background_fill": "var(--tb-page)",
            "checkbox_label_background_fill": "var(--tb-surface)",
            "checkbox_label_text_color": "var(--tb-ink)",
            "checkbox_label_background_fill_selected": "var(--tb-accent-soft)",
            "checkbox_label_text_color_selected": "var(--tb-ink)",
            "checkbox_background_color_selected": "var(--tb-accent-fill)",
            "checkbox_border_color_selected": "var(--tb-accent-fill)",
            "checkbox_border_color": "var(--tb-field-line)",
            "button_primary_background_fill": "var(--tb-accent-fill)",
            "button_primary_background_fill_hover": "var(--tb-accent-fill-hover)",
            "button_primary_border_color": "var(--tb-accent-fill)",
            "button_primary_text_color": "#ffffff",
            "button_secondary_background_fill": "var(--tb-surface)",
            "button_secondary_background_fill_hover": "var(--tb-accent-soft)",
            "button_secondary_border_color": "var(--tb-field-line)",
            "button_secondary_border_color_hover": "var(--tb-accent)",
            "button_secondary_text_color": "var(--tb-ink)",
            "button_cancel_background_fill": "var(--tb-surface)",
            "button_cancel_background_fill_hover": "var(--tb-bad-soft)",
            "button_cancel_border_color": "var(--tb-bad)",
            "button_cancel_text_color": "var(--tb-bad)",
            "button_cancel_text_color_hover": "var(--tb-bad)",
            "slider_color": "var(--tb-accent-fill)",
            "loader_color": "var(--tb-accent)",
            "accordion_text_color": "var(--tb-ink)",
            "table_text_color": "var(--tb-ink)",
        }
        known = set(vars(self))
        dark = {f"{name}_dark": value for name, value in both.items() if f"{name}_dark" in known}
        plain = {
            "body_text_size": "15px", "block_label_text_size": "13px", "block_title_text_size": "13px",
            "block_title_text_weight": "600", "block_label_text_weight": "600", "block_info_text_size": "13px",
            "block_shadow": "none", "block_border_width": "1px", "block_padding": "10px 12px", "layout_gap": "12px",
            "input_shadow": "none", "input_shadow_focus": "none", "input_border_width": "1px", "input_text_size": "15px",
            "button_border_width": "1px", "button_transition": "background-color .12s, border-color .12s",
            "button_large_text_weight": "600", "button_medium_text_weight": "600", "button_small_text_weight": "500",
            "button_primary_shadow": "none", "button_secondary_shadow": "none", "checkbox_shadow": "none",
        }  # fmt: skip
        self.set(**both, **dark, **plain)

    def _get_theme_css(self) -> str:
        """Gradio's variables and then our rules, in the one style sheet that a page loads before it is shown."""
        return f"{super()._get_theme_css()}\n{style_sheet()}"


@cache
def style_sheet() -> str:
    """The rules and colours shared by the app's screens and the sign-in pages (look.css), then the blind screen's own."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("look.css", "review/review.css"))


@cache
def page_scripts(part: str = "") -> str:
    """The scripts of a page: light or dark on all of them; what the desk does on the blind one, in the order they need each other."""
    names = ("look.js", *(f"review/{name}" for name in DESK_SCRIPTS if part == "review"))
    return "".join(f"<script>{(HERE / name).read_text(encoding='utf-8')}</script>" for name in names)


@cache
def theme() -> Tiebreak:
    return Tiebreak()


def look(part: str = "") -> dict[str, Any]:
    """What a mount passes on: `mount_gradio_app(app, blocks, path, **look("review"))`. The style sheet travels with the theme."""
    return {"theme": theme(), "head": page_scripts(part)}
