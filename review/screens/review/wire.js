/* What the blind screen sends: one call at a time, in order, each with a key of its own, kept in this tab until the server has it. */
(() => {
  if (window.tb) return;
  const tb = (window.tb = {});
  const KEPT = "tb-outbox";
  const random = (bytes) => Array.from(crypto.getRandomValues(new Uint8Array(bytes)), (b) => b.toString(16).padStart(2, "0")).join("");
  const page = random(8);
  const plain = (html) => new DOMParser().parseFromString(html, "text/html").documentElement.textContent;
  const stored = () => { try { return JSON.parse(sessionStorage.getItem(KEPT)); } catch { return null; } };
  let box = { who: "", items: [], revisions: {}, ...stored() };
  const keep = () => { try { sessionStorage.setItem(KEPT, JSON.stringify(box)); } catch { /* a full or forbidden store: the tab's memory holds it */ } };

  /* One request. Throws {words, again, out}: `again` where the same request may be sent later, `out` where nobody is signed in. */
  tb.call = async (verb, sent) => {
    const found = window.gradio_config?.dependencies?.find((one) => one.api_name === verb);
    const body = JSON.stringify({ data: [sent], fn_index: found?.id, session_hash: page, trigger_id: null, event_data: null });
    const request = { method: "POST", headers: { "content-type": "application/json" }, body, keepalive: body.length < 60000 };
    let reply;
    try {
      const root = location.pathname.replace(/\/+$/, "");
      reply = await (window.tbAsk ?? window.fetch)(`${root}/gradio_api/run/predict`, { ...request, signal: AbortSignal.timeout(20000) });
    } catch { throw { words: "The server cannot be reached.", again: true }; }
    const told = await reply.json().catch(() => null);
    if (reply.ok && told) return told.data[0];
    const words = plain(told?.error || told?.detail || "Something went wrong. Try again.");
    throw { words, again: !told || [429, 502, 503, 504].includes(reply.status), out: reply.status === 401 };
  };

  const waiting = new Map();
  let running = false;
  let wake = () => {};
  let idle = [];
  const pause = (ms) => new Promise((go) => { const timer = setTimeout(go, ms); wake = () => { clearTimeout(timer); go(); }; });
  window.addEventListener("online", () => wake());
  window.addEventListener("beforeunload", (event) => { if (box.items.some((item) => item.tried > 1) || tb.kept("draft")?.ideal) event.preventDefault(); });

  const settle = (item, how, what) => {
    box.items.shift();
    keep();
    const hands = waiting.get(item.key);
    waiting.delete(item.key);
    if (hands) hands[how](what);
    else if (how === "reject") tb.unsaved(what, item);
  };

  const deliver = async (item) => {
    if (item.verb === "vote" && item.revises === undefined) item.revises = box.revisions[item.sent.assignment] ?? 0;
    item.tried = (item.tried ?? 0) + 1;
    keep();
    const reply = await tb.call(item.verb, { ...item.sent, key: item.key, revises: item.revises ?? 0 });
    if (item.verb === "vote") tb.revision(item.sent.assignment, reply.revision);
    return reply;
  };

  const drain = async () => {
    if (running) return;
    running = true;
    for (let wait = 500; box.items.length; ) {
      const item = box.items[0];
      try {
        settle(item, "resolve", await deliver(item));
        if (wait > 500) tb.delayed("");
        wait = 500;
      } catch (trouble) {
        if (trouble.out) { tb.delayed("signed out"); break; }
        if (!trouble.again) { settle(item, "reject", trouble); continue; }
        wait = Math.min(8000, wait * 2);
        tb.delayed(trouble.words);
        await pause(wait);
      }
    }
    running = false;
    if (!box.items.length) idle.splice(0).forEach((go) => go());
  };

  /* Send in order and until it arrives. A vote nobody has tried to send yet is overtaken by the newer one. */
  tb.send = (verb, sent) => new Promise((resolve, reject) => {
    const overtaken = box.items.find((item) => verb === "vote" && item.verb === "vote" && !item.tried && item.sent.assignment === sent.assignment);
    const item = overtaken ?? { verb, key: random(16) };
    item.sent = sent;
    if (!overtaken) box.items.push(item);
    const hands = waiting.get(item.key);
    waiting.set(item.key, { resolve: (reply) => { hands?.resolve(reply); resolve(reply); }, reject: (trouble) => { hands?.reject(trouble); reject(trouble); } });
    keep();
    wake();
    drain();
  });
  tb.idle = () => (box.items.length ? new Promise((go) => idle.push(go)) : Promise.resolve());
  tb.busy = () => box.items.length > 0;
  tb.revision = (assignment, revision) => {
    const newest = Object.entries(box.revisions).slice(-20);
    box.revisions = { ...Object.fromEntries(newest), [assignment]: revision };
    keep();
  };
  /* What another person left in this tab is not sent in one's own name. */
  tb.belongsTo = (who) => {
    if (box.who !== who) {
      if (box.who) ["session", "voted", "draft", "ideal"].forEach((name) => tb.kept(name, null));
      box = { who, items: [], revisions: {} };
    }
    keep();
    drain();
  };
  tb.kept = (name, value) => {
    try {
      if (value !== undefined) sessionStorage.setItem(`tb-${name}`, JSON.stringify(value));
      return JSON.parse(sessionStorage.getItem(`tb-${name}`));
    } catch { return null; }
  };
})();
