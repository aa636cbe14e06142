/* The blind screen: keys, one request key for each intended vote, both panes scrolling in step. Knows left and right only. */
(() => {
  if (window.tb) return;
  const random = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  let last = { what: "", key: "" };
  let busy = false;
  let timer = 0;
  const hold = () => { busy = true; document.body.classList.add("tb-busy"); clearTimeout(timer); timer = setTimeout(free, 8000); };
  const free = () => { busy = false; document.body.classList.remove("tb-busy"); clearTimeout(timer); };
  /* The same intention sent twice (double click, retry) carries the same key; a change of mind gets a new one. */
  const keyFor = (...what) => {
    const same = JSON.stringify(what);
    if (last.what !== same) last = { what: same, key: random() };
    return last.key;
  };
  const byId = (id) => document.getElementById(id);
  const press = (id) => {
    const button = byId(id);
    if (!button || button.disabled || busy) return false;
    button.click();
    return true;
  };
  window.tb = {
    vote: (choice, assignment, _choice, comment, _key, ...rest) => {
      hold();
      return [assignment, choice, comment, keyFor(assignment, choice, comment), ...rest];
    },
    finish: (assignment, choice, comment, _key, revises, text, ...rest) => {
      hold();
      return [assignment, choice, comment, keyFor(assignment, "finish", text, comment), revises, text, ...rest];
    },
    free,
    shown: () => {
      free();
      document.querySelectorAll(".tb-answer, .tb-prompt pre").forEach((pane) => { pane.scrollTop = 0; });
      window.scrollTo({ top: 0 });
      byId("tb-pair")?.querySelector("[data-pair]")?.focus({ preventScroll: true });
    },
  };
  /* A second click while the first is on its way is swallowed before it becomes an event. */
  document.addEventListener("click", (event) => {
    if (busy && event.target instanceof Element && event.target.closest(".tb-once")) { event.stopImmediatePropagation(); event.preventDefault(); }
  }, true);
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
  const VOTES = { 1: "vote-left", ArrowLeft: "vote-left", 2: "vote-right", ArrowRight: "vote-right", 3: "vote-tie", 4: "vote-both-bad" };
  const typing = (el) => el instanceof Element && el.closest("input, textarea, select, [contenteditable=true]");
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.repeat) return;
    const dialog = byId("tb-keys");
    if (dialog?.open) { if (event.key === "?") { dialog.close(); event.preventDefault(); } return; }
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.closest("#tb-ideal-text")) {
        event.preventDefault();
        event.target.blur();
        setTimeout(() => press("save-ideal"), 60);
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    let done = false;
    if (VOTES[event.key]) done = press(VOTES[event.key]);
    else if (event.key === "n" || event.key === "N") done = press("next-pair");
    else if (event.key === "Enter" && !event.target.closest?.("button, a, summary")) done = press("next-pair");
    else if (event.key === "c" || event.key === "C" || event.key === "e" || event.key === "E") {
      const field = byId(event.key.toLowerCase() === "c" ? "tb-comment" : "tb-ideal-text")?.querySelector("textarea, input");
      if (field) { field.focus(); done = true; }
    } else if (event.key === "?") { dialog?.showModal(); done = true; }
    if (done) event.preventDefault();
  });
})();
