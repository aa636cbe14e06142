/* Criteria and reasons: small buttons for mouse, touch and keys. Both sides go through the same lines. */
(() => {
  const tb = window.tb;
  if (!tb || tb.chips) return;
  const byId = (id) => document.getElementById(id);
  const make = (tag, more, ...inside) => {
    const made = Object.assign(document.createElement(tag), { className: more.class ?? "" });
    for (const [name, value] of Object.entries(more)) if (name !== "class") made.setAttribute(name, value);
    made.append(...inside);
    return made;
  };
  tb.make = make;
  const SIDES = [["left", "Left", "1"], ["same", "Same", "3"], ["right", "Right", "2"]];
  const SIDE_WORDS = { left: "left answer", right: "right answer" };
  let chosen = { criteria: {}, reasons: [] };
  let shape = "";
  let changed = () => {};

  const radio = (value, words, key) => make("button", { type: "button", class: "tb-chip", role: "radio", "aria-checked": "false", tabindex: "-1", "data-value": value, "data-key": key }, words);
  const scaleOf = (criterion, side) => {
    const label = side ? `${criterion}, ${SIDE_WORDS[side]}` : criterion;
    const options = side ? ["1", "2", "3", "4", "5"].map((n) => radio(n, n, n)) : SIDES.map((one) => radio(...one));
    return make("div", { class: "tb-scale", role: "radiogroup", "aria-label": label, "data-criterion": criterion, "data-side": side }, ...(side ? [make("i", { "aria-hidden": "true" }, side === "left" ? "L" : "R")] : []), ...options);
  };
  const reason = (side, words, n) => make("button", { type: "button", class: "tb-chip", "aria-pressed": "false", "data-reason": `${side}: ${words}`, "data-key": String(n + 1) }, words);

  const lay = (criteria, scale, reasons) => {
    const wanted = JSON.stringify([criteria, scale, reasons]);
    if (wanted === shape) return;
    shape = wanted;
    const rows = criteria.map((name) => make("div", { class: "tb-criterion" }, make("span", { dir: "auto" }, name), ...(scale === "points" ? ["left", "right"] : [""]).map((side) => scaleOf(name, side))));
    byId("tb-criteria").replaceChildren(...rows);
    byId("tb-criteria-place").hidden = !rows.length;
    for (const side of ["left", "right"]) {
      byId(`tb-reasons-${side}`).replaceChildren(...reasons.map((words, n) => reason(side, words, n)));
      byId(`tb-reasons-${side}`).hidden = !reasons.length;
    }
  };

  const scales = () => [...document.querySelectorAll("#tb-criteria .tb-scale")];
  const valueOf = (place) => {
    const held = chosen.criteria[place.dataset.criterion];
    return String((place.dataset.side ? held?.[place.dataset.side] : held) ?? "");
  };
  const draw = () => {
    for (const place of scales()) {
      const options = [...place.querySelectorAll("[role=radio]")];
      options.forEach((one) => { one.setAttribute("aria-checked", String(one.dataset.value === valueOf(place))); one.tabIndex = -1; });
      (options.find((one) => one.dataset.value === valueOf(place)) ?? options[0]).tabIndex = 0;
    }
    document.querySelectorAll("[data-reason]").forEach((one) => one.setAttribute("aria-pressed", String(chosen.reasons.includes(one.dataset.reason))));
  };

  const rate = (option) => {
    const place = option.closest(".tb-scale");
    const { criterion, side } = place.dataset;
    const value = option.getAttribute("aria-checked") === "true" ? "" : option.dataset.value;
    const held = { ...chosen.criteria };
    if (!side) { if (value) held[criterion] = value; else delete held[criterion]; }
    else {
      const points = { ...held[criterion] };
      if (value) points[side] = Number(value); else delete points[side];
      if (Object.keys(points).length) held[criterion] = points; else delete held[criterion];
    }
    chosen = { ...chosen, criteria: held };
  };
  const toggle = (chip) => {
    const words = chip.dataset.reason;
    chosen = { ...chosen, reasons: chosen.reasons.includes(words) ? chosen.reasons.filter((one) => one !== words) : [...chosen.reasons, words] };
  };
  const pick = (chip) => {
    if (chip.disabled) return;
    if (chip.dataset.reason) toggle(chip); else rate(chip);
    draw();
    changed();
  };

  /* A digit picks in the group that holds the focus; a criterion hands the focus on to the next one. True when the key was used. */
  const key = (event) => {
    const at = event.target.closest?.(".tb-scale, .tb-reasons");
    if (!at) return false;
    const options = [...at.querySelectorAll(".tb-chip")];
    const meant = options.find((one) => one.dataset.key === event.key);
    const next = (to) => (to ? to.querySelector('[tabindex="0"]') ?? to.querySelector(".tb-chip") : byId("tb-scene"))?.focus();
    if (meant) {
      pick(meant);
      if (!meant.dataset.reason) next(scales()[scales().indexOf(at) + 1]); else meant.focus();
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      if (!at.matches(".tb-scale")) return false;
      const to = scales()[scales().indexOf(at) + (event.key === "ArrowDown" ? 1 : -1)];
      if (to) next(to);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      const step = event.key === "ArrowRight" ? 1 : -1;
      options[(options.indexOf(event.target) + step + options.length) % options.length]?.focus();
    } else if (event.key === "Escape") byId("tb-scene").focus();
    else return false;
    return true;
  };

  document.addEventListener("click", (event) => {
    const chip = event.target instanceof Element && event.target.closest("#tb-review .tb-chip[data-key]");
    if (!chip) return;
    pick(chip);
    if (event.detail > 0) byId("tb-scene").focus({ preventScroll: true }); // after a pointer, digits are votes again
  });

  tb.chips = {
    show: (scene, held, whenChanged) => {
      changed = whenChanged;
      chosen = { criteria: { ...held.criteria }, reasons: [...held.reasons] };
      lay(scene.criteria ?? [], scene.scale ?? "sides", scene.reasons ?? []);
      draw();
    },
    /* What counts: a criterion in points needs both sides. */
    chosen: () => ({
      criteria: Object.fromEntries(Object.entries(chosen.criteria).filter(([, held]) => typeof held === "string" || (held.left && held.right))),
      reasons: [...chosen.reasons],
    }),
    lock: (locked) => document.querySelectorAll("#tb-review .tb-chip[data-key]").forEach((one) => { one.disabled = locked; }),
    open: (what) => {
      const place = what === "criteria" ? scales()[0] : byId(`tb-reasons-${what}`);
      const first = place?.querySelector('[tabindex="0"]') ?? place?.querySelector(".tb-chip");
      if (!first || place.hidden || first.disabled) return false;
      first.focus();
      first.scrollIntoView({ block: "nearest" });
      return true;
    },
    key,
  };
})();
