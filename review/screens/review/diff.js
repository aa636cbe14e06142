/* What was changed, word by word: the longest common run of words, drawn as kept, added and removed. Texts stay texts. */
(() => {
  const tb = window.tb;
  if (!tb || tb.diff) return;
  const CELLS = 4e6;
  const cutter = window.Intl?.Segmenter ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;
  const words = (text) => (cutter ? Array.from(cutter.segment(text), (part) => part.segment) : text.match(/\s+|[^\s]+/g) ?? []);

  const middle = (one, two) => {
    const wide = two.length + 1;
    if ((one.length + 1) * wide > CELLS) return [["-", one], ["+", two]];
    const common = new Uint32Array((one.length + 1) * wide);
    for (let i = one.length - 1; i >= 0; i--) {
      for (let j = two.length - 1; j >= 0; j--) {
        const at = i * wide + j;
        common[at] = one[i] === two[j] ? common[at + wide + 1] + 1 : Math.max(common[at + wide], common[at + 1]);
      }
    }
    const steps = [];
    for (let i = 0, j = 0; i < one.length || j < two.length; ) {
      if (i < one.length && j < two.length && one[i] === two[j]) { steps.push(["=", [one[i]]]); i++; j++; }
      else if (i < one.length && (j === two.length || common[(i + 1) * wide + j] >= common[i * wide + j + 1])) steps.push(["-", [one[i++]]]);
      else steps.push(["+", [two[j++]]]);
    }
    return steps;
  };

  /* A short word or a blank left between two changes belongs to them: a phrase that was rewritten reads as one. */
  const SCRAP = /^[^\S\n]*\S{0,4}[^\S\n]*$/;
  const gathered = (parts) => {
    const found = [];
    let [gone, come] = ["", ""];
    const end = () => {
      if (gone) found.push(["-", gone]);
      if (come) found.push(["+", come]);
      [gone, come] = ["", ""];
    };
    parts.forEach(([kind, text], at) => {
      const scrap = kind === "=" && (gone || come) && at + 1 < parts.length && SCRAP.test(text);
      if (kind === "=" && !scrap) { end(); found.push([kind, text]); return; }
      if (kind !== "+") gone += text;
      if (kind !== "-") come += text;
    });
    end();
    return found;
  };

  /* [[kind, text], …] with kind "=", "-" or "+", neighbours of one kind joined. */
  tb.diff = (before, after) => {
    const [one, two] = [words(before), words(after)];
    let head = 0;
    while (head < one.length && head < two.length && one[head] === two[head]) head++;
    let tail = 0;
    while (tail < one.length - head && tail < two.length - head && one[one.length - 1 - tail] === two[two.length - 1 - tail]) tail++;
    const steps = [["=", one.slice(0, head)], ...middle(one.slice(head, one.length - tail), two.slice(head, two.length - tail)), ["=", one.slice(one.length - tail)]];
    const joined = [];
    for (const [kind, some] of steps) {
      if (!some.length) continue;
      const last = joined[joined.length - 1];
      if (last && last[0] === kind) last[1] += some.join("");
      else joined.push([kind, some.join("")]);
    }
    return gathered(joined);
  };

  const TAGS = { "=": "span", "-": "del", "+": "ins" };
  tb.drawDiff = (place, before, after) => {
    const parts = before === after ? [["=", after]] : tb.diff(before, after);
    place.replaceChildren(...parts.map(([kind, text]) => Object.assign(document.createElement(TAGS[kind]), { textContent: text })));
    return parts.filter(([kind], at) => kind !== "=" && (kind === "-" || parts[at - 1]?.[0] !== "-")).length;
  };
})();
