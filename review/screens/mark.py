"""The product's mark as SVG: on the bar of every page, and as the icon of the tab. Must not know anything else."""

MARK = (
    '<svg class="tb-mark" viewBox="0 0 24 24" width="22" height="22" aria-hidden="true" focusable="false">'
    '<rect x="3" y="8" width="7" height="13" rx="2"/><rect x="14" y="8" width="7" height="13" rx="2"/>'
    '<circle class="tb-mark-dot" cx="12" cy="4" r="2.6"/></svg>'
)
