/* The desk: the pair in hand, the one held ready, and what each press does. Knows left and right only, and asks for nothing before the vote. */
(() => {
  const tb = window.tb;
  if (!tb || tb.desk) return;
  const { draw, byId } = tb;
  const CHANGEABLE = "Saved at once; you can change it until you go on.";
  const SAID = { left: "left is better", right: "right is better", tie: "both good", both_bad: "both bad" };
  const CALM = "Press another vote to change it, or go on.";
  const PAUSE = 20 * 60 * 1000;
  let at = { stage: "wait" };

  const fresh = (scene, voted) => ({
    ...scene, choice: voted?.choice ?? "", settled: voted?.choice ?? "", marks: { criteria: voted?.criteria ?? {}, reasons: voted?.reasons ?? [] },
    said: "", next: voted?.next ?? null, again: Boolean(voted), pending: 0, refused: false, asks: false, asked: false, final: false, explained: false,
    wantsNext: false, start: "", edited: false, sent: "",
  });
  const ballot = () => ({ ...tb.chips.chosen(), comment: byId("tb-comment-text").value });
  const written = () => JSON.stringify(ballot());
  const anything = ({ criteria, reasons, comment }) => Object.keys(criteria).length + reasons.length > 0 || comment.trim() !== "";

  /* What is on the screen and not sent yet is kept in this tab: after a reload it stands beside its pair again. */
  const keepDraft = () => {
    if (at.stage !== "pair") return;
    const [held, text] = [ballot(), byId("tb-ideal-words").value];
    const ideal = at.edited && text !== at.sent ? text : "";
    const unsent = !at.final && written() !== at.said && anything(held);
    tb.kept("draft", ideal.trim() || unsent ? { assignment: at.assignment, ...held, ideal, start: at.start } : null);
  };
  const draftOf = (scene) => { const draft = tb.kept("draft"); return draft && draft.assignment === scene.assignment ? draft : null; };

  const draws = () => {
    draw.votes(at.choice, at.final);
    byId("next-pair").disabled = !(at.settled || at.refused || at.explained);
    byId("next-pair").classList.toggle("tb-main", !byId("next-pair").disabled);
    byId("tb-edit").disabled = !at.settled;
    byId("tb-skip").disabled = Boolean(at.choice);
    tb.chips.lock(at.final);
    byId("tb-comment-text").readOnly = at.final;
    keepDraft();
  };

  /* When this session began, by this tab; a long pause begins another. */
  const here = () => {
    const held = tb.kept("session");
    const now = Date.now();
    tb.kept("session", { began: held && now - held.seen < PAUSE ? held.began : now, seen: now });
  };

  const show = (scene, voted) => {
    draw.show("tb-ask", false);
    draw.show("tb-votes", true);
    if (scene.stage === "rest") { at = { stage: "rest" }; draw.rest(scene, Boolean(tb.kept("voted"))); return; }
    at = fresh(scene, voted);
    if (scene.stage === "practice") { draw.practice(scene); draw.status("Which answer would you rather send?"); draws(); return; }
    const draft = draftOf(scene) ?? scene.held;
    byId("tb-comment-text").value = voted?.comment ?? "";
    tb.chips.show(at, at.marks, draws);
    draw.pair(scene);
    at.said = voted ? written() : "";
    putBack(draft, voted ? tb.kept("ideal") : null);
    if (voted) tb.revision(at.assignment, voted.revision);
    if (voted) draw.status(`Your last vote: ${SAID[voted.choice]}.`, "saved", CALM); else draw.status(CHANGEABLE);
    here();
    draws();
  };

  /* What was not sent yet, and the ideal answer that was: both stand again where they were written. */
  const putBack = (draft, ideal) => {
    if (draft) {
      byId("tb-comment-text").value = draft.comment;
      tb.chips.show(at, draft, draws);
    }
    const sent = ideal?.assignment === at.assignment ? ideal : null;
    const shown = draft?.ideal && at.settled ? draft : sent;
    if (!shown) return;
    Object.assign(at, { start: shown.start, sent: sent?.ideal ?? "" });
    byId("tb-ideal-words").value = shown.ideal;
    draw.show("tb-ideal", true);
    typed();
  };
  /* After a reload the server offers the next pair, while something unsent belongs to the last vote: back to that one. */
  const resume = async (scene) => {
    const draft = tb.kept("draft");
    if (!draft || draftOf(scene)) return show(scene);
    const { voted } = await tb.call("back", {});
    if (voted && draftOf(voted.scene)) return show(voted.scene, { ...voted, next: scene.stage === "pair" ? scene : null });
    tb.kept("draft", null);
    show(scene);
    const text = draft.ideal || draft.comment;
    if (text) draw.trouble("This was not sent, and its pair cannot be changed any more. Copy it if you still need it.", text);
  };

  const lost = (trouble) => {
    if (trouble.out) tb.delayed("signed out");
    else draw.trouble(trouble.words ?? "Something went wrong. Load the page again.", "", trouble.again ? begin : null);
  };
  let opened = false;
  const begin = async () => {
    try {
      let reply = await tb.call("begin", {});
      tb.belongsTo(reply.who);
      if (!opened && tb.busy()) { await tb.idle(); reply = await tb.call("begin", {}); } // what this tab still held may have judged that pair
      opened = true;
      await resume(reply.scene);
    } catch (trouble) { lost(trouble); }
  };

  const practise = async (choice) => {
    if (at.explained || at.pending) return;
    Object.assign(at, { choice, pending: 1 });
    draws();
    try {
      const reply = await tb.send("practise", { pair: at.number, choice });
      Object.assign(at, { explained: true, pending: 0, next: reply.scene });
      draw.explained(reply.right, reply.words);
      draw.status(`You said: ${SAID[choice]}.`, "saved");
    } catch (trouble) { Object.assign(at, { choice: "", pending: 0 }); lost(trouble); }
    draws();
    byId("next-pair").focus({ preventScroll: true });
  };

  const arrived = (mine, choice, said, reply) => {
    Object.assign(mine, { settled: choice, said, refused: false, asks: reply.asks && !mine.asked, next: mine.next ?? reply.scene ?? null });
    mine.final = Boolean(mine.reveals);
    tb.kept("voted", true);
    if (mine !== at) return;
    draw.status(`Saved: ${SAID[choice]}.`, "saved", mine.final ? "It stands, now that the names are shown." : CALM);
    if (mine.final && mine.asks) ask(); else if (mine.final) reveal(mine);
  };
  /* Only where the study says so, and never before its question is answered. */
  const reveal = async (mine) => {
    try {
      const named = await tb.send("reveal", { assignment: mine.assignment });
      byId("tb-revealed").replaceChildren(...["left", "right"].map((side) => tb.make("p", { dir: "auto" }, `${side === "left" ? "Left" : "Right"}: ${named[side]}`)));
      draw.show("tb-revealed", mine === at);
      if (mine === at) byId("tb-revealed").scrollIntoView({ block: "nearest" });
    } catch (trouble) { if (mine === at) lost(trouble); }
  };
  const refused = (mine, trouble) => {
    Object.assign(mine, { choice: mine.settled, refused: true, wantsNext: false });
    if (mine === at) draw.status("Not saved. Go on with the next pair.", "bad");
    if (trouble.out) lost(trouble); else draw.trouble(trouble.words, mine === at ? byId("tb-comment-text").value : "");
  };

  const vote = async (choice) => {
    if (at.stage === "practice") return practise(choice);
    if (at.stage !== "pair" || at.final || !byId("tb-ask").hidden) return;
    const [mine, said] = [at, written()];
    if (mine.choice === choice && (mine.pending || mine.said === said)) return;
    mine.choice = choice;
    mine.pending++;
    draw.status("Saving…");
    draws();
    try {
      const reply = await tb.send("vote", { assignment: mine.assignment, choice, ...ballot(), ahead: !mine.next });
      arrived(mine, choice, said, reply);
    } catch (trouble) { refused(mine, trouble); }
    mine.pending--;
    if (mine !== at) return;
    draws();
    if (mine.wantsNext && !mine.pending) onward();
  };

  /* Written after the vote: sent behind the reviewer's back while the next pair is on the screen already. */
  const saveRest = () => {
    const [mine, said, text] = [at, written(), byId("tb-ideal-words").value];
    const missed = (what, kept, again) => (trouble) => draw.trouble(`${what} was not saved: ${trouble.words}`, kept, trouble.out ? null : again);
    const correct = () => tb.send("correct", { assignment: mine.assignment, text }).catch(missed("Your ideal answer", text, () => correct()));
    const revise = (sent) => tb.send("vote", sent).catch(missed("What you added to your vote", sent.comment, () => revise(sent)));
    if (mine.edited && text.trim() && text !== mine.start && text !== mine.sent) {
      tb.kept("ideal", { assignment: mine.assignment, ideal: text, start: mine.start ?? text });
      correct();
    }
    if (!mine.final && mine.settled && said !== mine.said) revise({ assignment: mine.assignment, choice: mine.settled, ...ballot(), ahead: false });
    mine.said = said;
  };

  const onward = async () => {
    if (at.stage === "reward") return at.next ? show(at.next) : begin();
    if (at.stage === "rest") return begin();
    if (at.stage === "practice") return at.explained ? (at.next ? show(at.next) : begin()) : undefined;
    if (at.stage !== "pair") return;
    if (at.pending) { at.wantsNext = true; return; }
    if (!at.settled && !at.refused) return;
    if (at.asks) return ask();
    if (at.settled) saveRest();
    tb.kept("draft", null);
    const { next, again } = at;
    at = { stage: "wait" };
    if (!next) return begin();
    const over = next.stage === "rest" || (next.session_total > 0 && next.session_done >= next.session_total);
    if (over && tb.kept("session") && !again) return reward(next);
    show(next);
  };

  const reward = async (next) => {
    const { began } = tb.kept("session");
    await tb.idle();
    let told = null;
    try { told = await tb.call("reward", { seconds: (Date.now() - began) / 1000 }); } catch { /* the pairs matter more than the card */ }
    tb.kept("session", null);
    if (!told || !told.votes) return show(next);
    const resting = next.stage === "rest";
    at = { stage: "reward", next: resting ? null : next };
    draw.reward(told, !resting, resting ? next.message : "Ten minutes are a good session. Fresh eyes judge better.");
  };

  const ask = () => {
    draw.show("tb-votes", false);
    draw.show("tb-ask", true);
    byId("tb-ask").focus({ preventScroll: true });
  };
  const guess = (choice) => {
    const mine = Object.assign(at, { asks: false, asked: true });
    draw.show("tb-ask", false);
    draw.show("tb-votes", true);
    const said = choice || (mine.final ? "unsure" : "");
    if (said) tb.send("guess", { assignment: mine.assignment, choice: said }).catch(() => {}); // a guess about the blinding is no part of the vote
    if (mine.final) reveal(mine); else onward();
  };

  const skip = async (reason) => {
    if (at.stage !== "pair" || at.pending || at.choice) return;
    const mine = at;
    mine.pending++;
    draw.status("Skipping…");
    try { show((await tb.send("skip", { assignment: mine.assignment, reason })).scene); }
    catch (trouble) { mine.pending--; mine.refused = true; draw.status(CHANGEABLE); draws(); lost(trouble); }
  };

  const undo = async () => {
    if (at.stage === "pair" && (at.choice || at.pending)) return draw.status("You are at your last vote: press another vote to change it.");
    if (!["pair", "rest", "reward"].includes(at.stage)) return;
    const held = at.stage === "pair" ? { ...at, held: ballot() } : at.next;
    await tb.idle();
    try {
      const { voted } = await tb.call("back", {});
      if (!voted) return at.stage === "pair" ? draw.status("There is no vote to change: none yet, or its study is closed.") : lost({ words: "There is no vote to change: its study is closed." });
      show(voted.scene, { ...voted, next: held && { ...held } });
    } catch (trouble) { lost(trouble); }
  };

  const edit = (from) => {
    if (at.stage !== "pair" || !at.settled) return;
    const area = byId("tb-ideal-words");
    const side = from ?? { left: "left", right: "right", tie: "left" }[at.settled] ?? "";
    const opens = byId("tb-ideal").hidden;
    if (opens || from !== undefined) {
      const text = side ? at[side] : "";
      if (!at.edited) area.value = at.start = text === byId("tb-review").dataset.empty ? "" : text;
    }
    draw.show("tb-ideal", true);
    typed();
    area.focus({ preventScroll: true });
    area.setSelectionRange(area.value.length, area.value.length);
    byId("tb-ideal").scrollIntoView({ block: "nearest" });
  };
  /* At once, since the reviewer may go on before anything is drawn. */
  const wrote = () => {
    at.edited = byId("tb-ideal-words").value !== at.start;
    keepDraft();
    requestAnimationFrame(typed);
  };
  const typed = () => {
    if (byId("tb-ideal").hidden) return;
    const area = byId("tb-ideal-words");
    at.edited = area.value !== at.start;
    keepDraft();
    const changes = tb.drawDiff(byId("tb-diff"), at.start, area.value);
    byId("tb-diff-count").textContent = changes ? `${changes} change${changes === 1 ? "" : "s"}` : "No change yet";
    byId("save-ideal").disabled = !area.value.trim();
    document.querySelectorAll("#tb-ideal [data-act^=from-]").forEach((button) => { button.disabled = at.edited; }); // what was typed is never overwritten
  };
  /* The button says save: an untouched starting text is kept too. */
  const saveIdeal = () => {
    if (at.stage !== "pair" || !byId("tb-ideal-words").value.trim()) return;
    Object.assign(at, { edited: true, start: byId("tb-ideal-words").value === at.start ? null : at.start });
    onward();
  };

  tb.unsaved = (trouble, item) => draw.trouble(`Something you sent earlier was not saved: ${trouble.words}`, item.sent.text || item.sent.comment || "");
  tb.delayed = (words) => {
    const strip = byId("tb-delayed");
    if (!strip) return;
    if (words === "signed out") { if (!document.querySelector('#tb-troubles [href="/login"]')) draw.trouble("You are signed out. What you wrote is kept in this tab and sent once you are back.", "", null, "/login"); return; }
    strip.textContent = words ? `${words} What you did is kept here and sent again by itself.` : "";
    strip.hidden = !words;
  };
  const enough = () => { at = { stage: "rest" }; draw.rest({ title: "Thank you. That helped.", message: "You can close this page. Your next pair waits for you.", done: 0, total: 0 }, true); };
  tb.desk = { keepDraft, begin, vote, onward, guess, skip, undo, edit, wrote, saveIdeal, enough, scene: () => at.stage, asking: () => !byId("tb-ask").hidden };
})();
