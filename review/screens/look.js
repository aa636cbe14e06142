/* Every page: light or dark, kept in this browser; and what the server refuses is said, where Gradio stays silent. No requests of its own. */
(() => {
  if (window.tbLook) return;
  window.tbLook = true;
  const stored = () => { try { return localStorage.getItem("tb-theme"); } catch { return null; } };
  const apply = () => {
    const wanted = stored();
    if (wanted && document.body.classList.contains("dark") !== (wanted === "dark")) {
      document.body.classList.toggle("dark", wanted === "dark");
    }
  };
  apply();
  new MutationObserver(apply).observe(document.body, { attributes: true, attributeFilter: ["class"] });
  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target) return;
    if (target.closest('[data-tb="theme"]')) {
      try { localStorage.setItem("tb-theme", document.body.classList.contains("dark") ? "light" : "dark"); } catch { return; }
      apply();
    }
    if (target.closest('[data-tb="close"]')) target.closest("dialog")?.close();
    if (target.closest('[data-tb="keys"]')) document.getElementById("tb-keys")?.showModal();
    const tab = target.closest("[data-tb-tab]");
    if (tab) document.getElementById(`${tab.dataset.tbTab}-button`)?.click();
  });
  /* Gradio drops the errors of events that pass the queue: a refused vote would look like a dead button. */
  const said = new Map();
  const say = (title, words) => {
    if (Date.now() - (said.get(words) ?? 0) < 8000) return;
    said.set(words, Date.now());
    const toast = document.createElement("div");
    toast.className = "tb-toast";
    toast.setAttribute("role", "alert");
    for (const [tag, text] of [["b", title], ["p", words]]) toast.appendChild(document.createElement(tag)).textContent = text;
    const close = toast.appendChild(document.createElement("button"));
    close.textContent = "Close";
    close.className = "tb-quiet";
    close.onclick = () => toast.remove();
    (document.querySelector(".gradio-container") ?? document.body).appendChild(toast);
    setTimeout(() => toast.remove(), 10000);
  };
  const plain = (html) => new DOMParser().parseFromString(html, "text/html").documentElement.textContent;
  const ask = (window.tbAsk = window.fetch); // for a script that says its own errors
  window.fetch = async (...given) => {
    const direct = String(given[0]?.url ?? given[0]).includes("/run/predict");
    let reply;
    try { reply = await ask(...given); } catch (error) {
      if (direct) say("No answer", "The server cannot be reached. What is saved stays saved; try again in a moment.");
      throw error;
    }
    if (direct && !reply.ok) {
      reply.clone().json().then((body) => {
        if (body.detail) say("That did not work", String(body.detail));
        else if (body.visible !== false) say(plain(body.title || "That did not work"), plain(body.error || "Something went wrong. Try again."));
      }, () => {});
    }
    return reply;
  };
})();
/* What a person unfolded stays unfolded when its part is drawn anew, as that of a run is every two seconds. */
(() => {
  if (window.tbUnfolded) return;
  const unfolded = (window.tbUnfolded = new Set());
  const key = (part) => `${part.parentElement?.closest("[id]")?.id} ${part.querySelector("summary")?.textContent}`;
  document.addEventListener("click", (event) => {
    const part = event.target instanceof Element ? event.target.closest("summary")?.closest("details") : null;
    if (part) unfolded[part.open ? "delete" : "add"](key(part));
  }, true);
  new MutationObserver((changes) => {
    if (!unfolded.size) return;
    for (const part of document.querySelectorAll("details:not([open])")) if (unfolded.has(key(part))) part.open = true;
  }).observe(document.body, { childList: true, subtree: true, attributes: true, attributeFilter: ["open"] });
})();
/* Keys for buttons marked tb-press-KEY, where the one that can be seen is meant: 1-4 for a judgement, n for the next. Never while writing. */
(() => {
  if (window.tbPress) return;
  window.tbPress = true;
  document.addEventListener("keydown", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (!target || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    const pressable = () => [...document.querySelectorAll("button[class*=tb-press-]")].some((button) => button.offsetParent !== null);
    if (event.key === "Escape" && target.matches("textarea") && pressable()) return target.blur();
    if (!/^[0-9a-z]$/i.test(event.key) || target.closest("input, textarea, select, [contenteditable], dialog[open]")) return;
    const buttons = [...document.querySelectorAll(`button.tb-press-${event.key.toLowerCase()}`)];
    const meant = buttons.find((button) => button.offsetParent !== null && !button.disabled);
    if (meant) { event.preventDefault(); meant.click(); }
  });
})();
