/* Light or dark on the hand-written pages: what was chosen on a screen, else what the system says. */
(() => {
  let wanted = null;
  try { wanted = localStorage.getItem("tb-theme"); } catch { /* no storage, no choice kept */ }
  const dark = wanted ? wanted === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.body.classList.toggle("dark", dark);
  document.documentElement.classList.toggle("dark", dark);
})();
