/* Every page: light or dark, kept in this browser. No requests, no text from the server. */
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
})();
