"""The desk as HTML: empty places for texts that the page's script fills, the votes, the cards, the dialogs, the keys.

Everything here is the same for every pair and every person. Must not know services, people or pairs.
"""

from review.protocol.ballots import EMPTY, MAX_COMMENT, MAX_CORRECTION, MAX_REASON
from review.screens.parts import escape

VOTES: tuple[tuple[str, str, str, str], ...] = (
    ("left", "vote-left", "Left is better", "1 ←"),
    ("right", "vote-right", "Right is better", "2 →"),
    ("tie", "vote-tie", "Both good", "3"),
    ("both_bad", "vote-both-bad", "Both bad", "4"),
)
GUESSES = (("left", "Left", "1"), ("right", "Right", "2"), ("unsure", "Can’t tell", "3"), ("", "Skip this question", "N"))
SKIPS = ("Not my field", "Needs a specialist", "The prompt is unclear", "Contains personal data")
STARTS = (("left", "left answer"), ("right", "right answer"), ("empty", "nothing"))
KEYS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("1", "←"), "Left is better"),
    (("2", "→"), "Right is better"),
    (("3",), "Both good"),
    (("4",), "Both bad"),
    (("N", "Enter"), "Next pair, after your vote"),
    (("K",), "Criteria: then 1 left, 2 right, 3 same (or 1 to 5 points)"),
    (("L",), "Reasons for the left answer: then their numbers"),
    (("R",), "Reasons for the right answer: then their numbers"),
    (("C",), "Write a comment"),
    (("E",), "Make it perfect: write the ideal answer"),
    (("Ctrl + Enter",), "Save the ideal answer and go on"),
    (("U",), "Undo: back to your last vote, to change it"),
    (("S",), "Skip this pair, with a reason"),
    (("Esc",), "Leave a field or a group"),
    (("?",), "These keys"),
)


def desk_html() -> str:
    return (
        f'<div id="tb-review" data-empty="{escape(EMPTY)}">{_practice()}<div id="tb-pair">'
        f'<p id="tb-wait" class="tb-muted" role="status">Fetching your next pair…</p>{_scene()}{_rest()}{_reward()}</div>'
        f"{_foot()}{_skipping()}{_keys()}</div>"
    )


def kbd(key: str) -> str:
    """A key as a hint for the eye; screen readers get `aria-keyshortcuts`."""
    return f'<kbd aria-hidden="true">{escape(key)}</kbd>'


def button(words: str, key: str = "", elem_id: str = "", classes: str = "tb-btn", **data: str) -> str:
    more = "".join(f' data-{name}="{escape(value)}"' for name, value in data.items())
    more += f' id="{elem_id}"' if elem_id else ""
    more += f' aria-keyshortcuts="{escape(key.split()[0])}"' if key else ""
    return f'<button type="button" class="{classes}"{more}><span>{escape(words)}</span>{kbd(key) if key else ""}</button>'


def _practice() -> str:
    return '<p id="tb-practice" class="tb-practice" hidden><b id="tb-practice-words"></b> <span>Nothing here is counted.</span></p>'


def pane(side: str, title: str, key: str) -> str:
    """One answer's place and its reasons: both sides are this line."""
    return (
        f'<section class="tb-pane tb-card" aria-labelledby="tb-{side}"><h2 id="tb-{side}">{title}</h2>'
        f'<pre class="tb-plain tb-answer" id="tb-text-{side}" dir="auto" tabindex="0" aria-labelledby="tb-{side}"></pre>'
        f'<div class="tb-reasons" id="tb-reasons-{side}" role="group" aria-label="Reasons for the {side} answer" data-hint="{key}" hidden>'
        "</div></section>"
    )


def _scene() -> str:
    return (
        '<div id="tb-scene" tabindex="-1" hidden>'
        '<section class="tb-prompt tb-card" aria-labelledby="tb-asked"><h2 id="tb-asked">The customer asks</h2>'
        '<pre class="tb-plain" id="tb-text-prompt" dir="auto" tabindex="0" aria-labelledby="tb-asked"></pre></section>'
        f'<div class="tb-panes">{pane("left", "1 · Left answer", "L")}{pane("right", "2 · Right answer", "R")}</div>'
        '<section id="tb-explained" class="tb-card tb-explained" role="status" hidden><h2 id="tb-explained-title"></h2>'
        '<p id="tb-explained-words"></p></section>'
        f'<section id="tb-revealed" class="tb-card" aria-label="Which was which" hidden></section>{_ideal()}{_more()}</div>'
    )


def _ideal() -> str:
    starts = "".join(button(words, classes="tb-quiet", act=f"from-{place}") for place, words in STARTS)
    return (
        '<section id="tb-ideal" class="tb-card" aria-labelledby="tb-ideal-title" hidden>'
        f'<div class="tb-line"><h2 id="tb-ideal-title">The ideal answer</h2><span class="tb-muted">Start from</span>{starts}</div>'
        '<p class="tb-muted tb-small">Change it until you would send it to the customer. '
        "Approved ideal answers are what the model learns next.</p>"
        '<div class="tb-editor"><div id="tb-ideal-text"><textarea id="tb-ideal-words" aria-labelledby="tb-ideal-title" dir="auto" rows="6" '
        f'maxlength="{MAX_CORRECTION}" placeholder="Write the answer you would send"></textarea></div>'
        '<div class="tb-changes"><p class="tb-small tb-muted">What you changed: <span id="tb-diff-count" role="status"></span></p>'
        '<div id="tb-diff" class="tb-plain" dir="auto" tabindex="0" role="group" aria-label="What you changed"></div></div></div>'
        f"{button('Save the ideal answer and go on', 'Ctrl + Enter', 'save-ideal', 'tb-btn', act='save-ideal')}</section>"
    )


def _more() -> str:
    return (
        '<section id="tb-more" aria-label="More about this pair, optional"><div id="tb-criteria-place" hidden>'
        f'<h2 class="tb-label">Criteria <span>optional {kbd("K")}</span></h2><div id="tb-criteria"></div></div>'
        f'<div class="tb-comment"><label class="tb-label" for="tb-comment-text">Comment <span>optional {kbd("C")}</span></label>'
        f'<textarea id="tb-comment-text" rows="1" maxlength="{MAX_COMMENT}" dir="auto"></textarea></div></section>'
    )


def _rest() -> str:
    return (
        '<section id="tb-rest" class="tb-done tb-card" tabindex="-1" aria-labelledby="tb-rest-title" hidden><h2 id="tb-rest-title"></h2>'
        f'<p id="tb-rest-words"></p><div class="tb-line">{button("Look again", "N", "tb-look-again", act="again")}'
        f"{button('Change my last vote', 'U', 'tb-rest-undo', 'tb-quiet', act='undo')}</div></section>"
    )


def _reward() -> str:
    return (
        '<section id="tb-reward" class="tb-done tb-card" tabindex="-1" aria-labelledby="tb-reward-title" hidden>'
        '<h2 id="tb-reward-title">Well done.</h2><ul id="tb-reward-facts" class="tb-facts"></ul><ul id="tb-reward-lines"></ul>'
        f'<p id="tb-reward-words"></p><div class="tb-line">{button("Go on", "N", "tb-go-on", "tb-btn tb-main", act="next")}'
        f"{button('That’s enough for today', '', 'tb-enough', act='enough')}"
        f"{button('Change my last vote', 'U', 'tb-reward-undo', 'tb-quiet', act='undo')}</div></section>"
    )


def _foot() -> str:
    votes = "".join(button(words, key, elem_id, vote=choice) for choice, elem_id, words, key in VOTES)
    guesses = "".join(button(words, key, guess=choice) for choice, words, key in GUESSES)
    return (
        '<div id="tb-foot" hidden><div id="tb-troubles" role="alert"></div><p id="tb-delayed" class="tb-delayed" role="status" hidden></p>'
        '<p id="tb-status" role="status" class="tb-small"></p>'
        f'<div id="tb-votes" role="group" aria-label="Your vote">{votes}{button("Next pair", "N", "next-pair", act="next")}</div>'
        '<div id="tb-ask" role="group" tabindex="-1" aria-labelledby="tb-ask-words" hidden>'
        '<p id="tb-ask-words"><b>Which one is the tuned model?</b> '
        f"A guess is enough. It checks that the two sides are well hidden, and never changes your vote.</p>{guesses}</div>"
        f'<div id="tb-tools">{button("Make it perfect", "E", "tb-edit", "tb-quiet", act="edit")}'
        f"{button('Undo', 'U', 'tb-undo', 'tb-quiet', act='undo')}{button('Skip', 'S', 'tb-skip', 'tb-quiet', act='skip')}"
        f'<button type="button" class="tb-quiet" data-tb="keys" aria-keyshortcuts="?"><span>Keys</span>{kbd("?")}</button></div></div>'
    )


def _skipping() -> str:
    reasons = "".join(
        f'<label class="tb-chip"><input type="radio" name="tb-skip" value="{escape(words)}" data-key="{n}">'
        f"{escape(words)} {kbd(str(n))}</label>"
        for n, words in enumerate(SKIPS, 1)
    )
    return (
        '<dialog id="tb-skipping" class="tb-dialog" aria-labelledby="tb-skip-title"><form method="dialog">'
        '<h2 id="tb-skip-title">Skip this pair</h2><p class="tb-muted">It goes to somebody else and will not come back to you. Why?</p>'
        f'<div class="tb-chips">{reasons}</div><label class="tb-label" for="tb-skip-other">Another reason</label>'
        f'<input id="tb-skip-other" type="text" maxlength="{MAX_REASON}" dir="auto">'
        '<p id="tb-skip-hint" class="tb-small tb-bad-ink" role="alert"></p>'
        f'<div class="tb-line">{button("Skip it", "Enter", classes="tb-btn tb-main", act="skip-now")}'
        '<button type="button" class="tb-quiet" data-tb="close">Keep it</button></div></form></dialog>'
    )


def _keys() -> str:
    rows = "".join(f"<dt>{' or '.join(f'<kbd>{escape(key)}</kbd>' for key in keys)}</dt><dd>{escape(words)}</dd>" for keys, words in KEYS)
    return (
        '<dialog id="tb-keys" class="tb-dialog" aria-labelledby="tb-keys-title"><h2 id="tb-keys-title">Keys</h2>'
        f'<dl>{rows}</dl><button type="button" class="tb-quiet" data-tb="close">Close</button></dialog>'
    )
