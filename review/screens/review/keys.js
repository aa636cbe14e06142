/* Keys, clicks and scrolling in step of the blind screen. Every key has a button that says it. */
(() => {
  const tb = window.tb;
  if (!tb || tb.start) return;
  const { desk, byId } = tb;
  const VOTES = { 1: "left", ArrowLeft: "left", 2: "right", ArrowRight: "right", 3: "tie", 4: "both_bad" };
  const GUESSES = { 1: "left", 2: "right", 3: "unsure", n: "", Escape: "", Enter: "" };
  const focus = (id) => { const field = byId(id); if (!field || field.offsetParent === null) return false; field.focus(); field.scrollIntoView({ block: "nearest" }); return true; };
  const press = (id) => { const button = byId(id); if (!button || button.disabled || button.offsetParent === null) return false; button.click(); return true; };
  const LETTERS = {
    n: () => (desk.scene() === "pair" ? (desk.onward(), true) : press("next-pair")) || press("tb-go-on") || press("tb-look-again"),
    e: () => press("tb-edit"),
    u: () => press("tb-undo") || press("tb-rest-undo") || press("tb-reward-undo"),
    s: () => press("tb-skip"),
    c: () => focus("tb-comment-text"),
    k: () => tb.chips.open("criteria"),
    l: () => tb.chips.open("left"),
    r: () => tb.chips.open("right"),
    "?": () => { byId("tb-keys").showModal(); return true; },
  };

  const skipDialog = () => { const dialog = byId("tb-skipping"); dialog.querySelector("form").reset(); dialog.showModal(); dialog.querySelector("input").focus(); };
  const skipNow = () => {
    const form = byId("tb-skipping").querySelector("form");
    const other = byId("tb-skip-other").value.trim();
    const reason = other || form.querySelector("input:checked")?.value;
    if (!reason) { byId("tb-skip-hint").textContent = "Choose or write a reason first."; return; }
    byId("tb-skipping").close();
    desk.skip(reason);
  };
  const ACTS = {
    next: desk.onward, edit: () => desk.edit(), undo: desk.undo, skip: skipDialog, "skip-now": skipNow, "save-ideal": desk.saveIdeal,
    enough: desk.enough, again: desk.begin,
    "from-left": () => desk.edit("left"), "from-right": () => desk.edit("right"), "from-empty": () => desk.edit(""),
  };
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target.closest("[data-vote], [data-guess], [data-act]") : null;
    if (!target || target.disabled) return;
    if (target.dataset.vote) {
      desk.vote(target.dataset.vote);
      if (event.detail > 0) byId("tb-scene").focus({ preventScroll: true }); // after a pointer, Enter goes on
    }
    else if (target.dataset.guess !== undefined) desk.guess(target.dataset.guess);
    else { event.preventDefault(); ACTS[target.dataset.act]?.(); }
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "tb-ideal-words") desk.wrote();
    else if (event.target.id === "tb-comment-text") desk.keepDraft();
  });
  document.addEventListener("submit", (event) => { if (event.target.closest?.("#tb-skipping")) { event.preventDefault(); skipNow(); } }, true);

  /* Both panes at the same share of their way. */
  let leader = null;
  document.addEventListener("scroll", (event) => {
    const pane = event.target;
    if (!(pane instanceof Element) || !pane.matches(".tb-answer") || (leader && leader !== pane)) return;
    leader = pane;
    const share = pane.scrollTop / Math.max(1, pane.scrollHeight - pane.clientHeight);
    document.querySelectorAll(".tb-answer").forEach((other) => {
      if (other !== pane) other.scrollTop = share * Math.max(0, other.scrollHeight - other.clientHeight);
    });
    requestAnimationFrame(() => requestAnimationFrame(() => { leader = null; }));
  }, true);

  const inField = (event) => {
    if (event.key === "Escape") byId("tb-scene").focus();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      if (event.target.id === "tb-ideal-words") desk.saveIdeal(); else if (event.target.id === "tb-comment-text") byId("tb-scene").focus();
    } else return;
    event.preventDefault();
  };
  const inSkipping = (event) => {
    const chosen = event.target.id === "tb-skip-other" ? null : byId("tb-skipping").querySelector(`[data-key="${CSS.escape(event.key)}"]`);
    if (event.key === "Enter" && !event.target.closest("button")) skipNow();
    else if (chosen) { chosen.checked = true; chosen.focus(); }
    else return;
    event.preventDefault();
  };
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.repeat || !byId("tb-review") || !(event.target instanceof Element)) return;
    if (byId("tb-skipping").open) return inSkipping(event);
    if (byId("tb-keys").open) { if (event.key === "?") { byId("tb-keys").close(); event.preventDefault(); } return; }
    if (event.target.closest("input, textarea, select, [contenteditable=true]")) return inField(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const onButton = event.target.closest("button, a, summary");
    let used = false;
    if (desk.asking()) { if (key in GUESSES && !(key === "Enter" && onButton)) { desk.guess(GUESSES[key]); used = true; } }
    else if (tb.chips.key(event)) used = true;
    else if (VOTES[key]) { if (desk.scene() === "pair" || desk.scene() === "practice") { desk.vote(VOTES[key]); used = true; } }
    else if (key === "Enter") used = !onButton && LETTERS.n();
    else if (LETTERS[key]) used = LETTERS[key]();
    if (used) event.preventDefault();
  });
  window.addEventListener("pageshow", (event) => { if (event.persisted && byId("tb-review")) desk.begin(); });
  tb.start = () => { if (byId("tb-review") && desk.scene() === "wait") desk.begin(); };
})();
