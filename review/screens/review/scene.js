/* Draws what the desk holds: a pair, a practice pair, a rest, the end of a session. Texts are set as texts, both sides by one line. */
(() => {
  const tb = window.tb;
  if (!tb || tb.draw) return;
  const byId = (id) => document.getElementById(id);
  const show = (id, shown) => { const place = byId(id); if (place) place.hidden = !shown; };
  const minutes = (seconds) => {
    const whole = Math.max(1, Math.round(seconds / 60));
    return seconds < 45 ? "under a minute" : `about ${whole} minute${whole === 1 ? "" : "s"}`;
  };
  tb.byId = byId;

  const progress = (done, total, words, label) => {
    const share = total > 0 ? Math.min(1, done / total) : 0;
    const bar = tb.make("i", {});
    bar.style.width = `${(share * 100).toFixed(1)}%`;
    const track = tb.make("div", { class: "tb-track", role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(Math.round(share * 100)) }, bar);
    byId("tb-aside")?.replaceChildren(...(total > 0 ? [tb.make("div", { class: "tb-progress" }, track, tb.make("span", { class: "tb-num" }, ...[words].flat()))] : []));
  };
  const sessionProgress = ({ done, total, session_done: here, session_total: session, seconds_left: seconds }) => {
    if (!session) return progress(done, total, `${done} of ${total} · ${minutes(seconds)} left`, "Pairs you have judged");
    const at = here >= session ? 0 : here;
    const whole = Math.min(session, at + total - done);
    const left = total > done ? (seconds / (total - done)) * (whole - at) : 0;
    progress(at, whole, [`${at} of ${whole}`, tb.make("span", { class: "tb-hint" }, " in this session"), ` · ${minutes(left)} left`], "Pairs of this session you have judged");
  };

  const texts = (scene) => {
    for (const part of ["prompt", "left", "right"]) {
      const place = byId(`tb-text-${part}`);
      place.textContent = scene[part];
      place.scrollTop = 0;
    }
  };

  const parts = (stage) => {
    show("tb-wait", false);
    show("tb-scene", stage === "pair" || stage === "practice");
    show("tb-more", stage === "pair");
    show("tb-rest", stage === "rest");
    show("tb-reward", stage === "reward");
    show("tb-foot", stage === "pair" || stage === "practice");
    show("tb-practice", stage === "practice");
    show("tb-explained", false);
    show("tb-ideal", false);
    show("tb-revealed", false);
    document.body.dataset.tbScene = stage;
    for (const id of ["tb-edit", "tb-undo", "tb-skip"]) show(id, stage === "pair");
    for (const side of ["left", "right"]) if (stage === "practice") show(`tb-reasons-${side}`, false);
  };

  const focusScene = () => {
    window.scrollTo({ top: 0 });
    byId("tb-scene").focus({ preventScroll: true });
  };

  tb.draw = {
    pair: (scene) => {
      parts("pair");
      byId("tb-scene").dataset.pair = scene.assignment;
      texts(scene);
      sessionProgress(scene);
      for (const side of ["left", "right"]) show(`tb-reasons-${side}`, scene.reasons.length > 0);
      focusScene();
    },
    practice: (scene) => {
      parts("practice");
      delete byId("tb-scene").dataset.pair;
      texts(scene);
      byId("tb-practice-words").textContent = `Practice ${scene.number} of ${scene.of}`;
      progress(scene.number - 1, scene.of, `${scene.number - 1} of ${scene.of} practised · under a minute`, "Practice pairs you have judged");
      focusScene();
    },
    explained: (right, words) => {
      byId("tb-explained-title").textContent = right ? "Well seen." : "Look again.";
      byId("tb-explained-words").textContent = words;
      byId("tb-explained").classList.toggle("tb-is-right", right);
      show("tb-explained", true);
      byId("tb-explained").scrollIntoView({ block: "nearest" });
    },
    rest: (scene, canUndo) => {
      parts("rest");
      byId("tb-rest-title").textContent = scene.title;
      byId("tb-rest-words").textContent = scene.message;
      show("tb-rest-undo", canUndo);
      progress(scene.done, scene.total, `${scene.done} of ${scene.total}`, "Pairs you have judged");
      byId("tb-rest").focus({ preventScroll: true });
    },
    reward: (reward, more, message) => {
      parts("reward");
      const facts = [`${reward.votes} vote${reward.votes === 1 ? "" : "s"}`, minutes(reward.minutes * 60)];
      if (reward.agreement !== null) facts.push(`${Math.round(reward.agreement * 100)} % judged as others did`);
      byId("tb-reward-facts").replaceChildren(...facts.map((words) => tb.make("li", {}, words)));
      byId("tb-reward-lines").replaceChildren(...reward.lines.map((words) => tb.make("li", { dir: "auto" }, words)));
      show("tb-reward-lines", reward.lines.length > 0);
      byId("tb-reward-words").textContent = message;
      byId("tb-go-on").querySelector("span").textContent = more ? "Go on" : "Look again";
      show("tb-enough", more);
      progress(1, 1, "Session done", "Pairs of this session you have judged");
      byId("tb-reward").focus({ preventScroll: true });
    },
    status: (words, tone, hint) => {
      const place = byId("tb-status");
      const told = tone ? tb.make("b", {}, words) : words;
      place.dataset.tone = tone ?? "";
      place.replaceChildren(told, ...(hint ? [tb.make("span", { class: "tb-hint" }, ` ${hint}`)] : []));
    },
    votes: (choice, locked) => {
      document.querySelectorAll("#tb-votes [data-vote]").forEach((button) => {
        button.setAttribute("aria-pressed", String(button.dataset.vote === choice));
        button.disabled = locked;
      });
    },
    /* What could not be saved, in words, with the text so that nobody has to write it again. */
    trouble: (words, text, again, where) => {
      const strip = tb.make("div", { class: "tb-trouble" }, tb.make("p", {}, words));
      const quiet = (label, act) => { const made = tb.make("button", { type: "button", class: "tb-quiet" }, label); made.onclick = act; return made; };
      if (text) { const kept = tb.make("textarea", { readonly: "", rows: "2", "aria-label": "What was not saved", dir: "auto" }); kept.value = text; strip.append(kept); }
      if (where) strip.append(tb.make("a", { href: where, class: "tb-quiet" }, "Sign in again"));
      if (again) strip.append(quiet("Try again", () => { strip.remove(); again(); }));
      strip.append(quiet("Close", () => strip.remove()));
      byId("tb-troubles").append(strip);
    },
    calm: () => byId("tb-troubles").replaceChildren(),
    show,
  };
})();
