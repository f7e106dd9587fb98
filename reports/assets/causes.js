// Effects: what ablating a unit by itself adds to a class, in percentage points of the image. They are measured where a
// scan did so, and otherwise estimated to first order; the packing is that of cause_data.py.
const estimatedRow = new Map((data.causes ? data.causes.classes : []).map((index, row) => [index, row]));
let estimates = []; // by layer, once unpacked

async function unpackCauses() {
  estimates = await Promise.all(data.causes.layers.map(async ({ largest, packed }) => {
    const bytes = await inflated(packed);
    const size = bytes.length / 3;
    const steps = new Int16Array(size);
    for (let k = 0; k < size; k++) steps[k] = bytes[k] | (bytes[size + k] << 8);
    return { largest, steps, widths: bytes.subarray(2 * size), count: size / largest.length };
  }));
}

// The first-order effect of unit `i` on class `k`; null where it was not estimated.
function estimate(i, k) {
  const row = estimatedRow.get(k);
  if (row === undefined) return null;
  const { largest, steps, widths, count } = estimates[units.layer[i]];
  const at = row * count + units.unit[i];
  if (steps[at] === -32768) return null;
  const value = (largest[row] * steps[at]) / data.causes.steps;
  if (!widths[at]) return { value, low: null, high: null, measured: false };
  const half = largest[row] * data.causes.widest * 10 ** ((widths[at] - 255) / data.causes.decade);
  return { value, low: value - half, high: value + half, measured: false };
}

// The effect that a scan measured: of the class that it was made for, with interval, or of the unit's own class.
function measurement(i, k) {
  const scanned = data.classes[k]?.effects;
  if (scanned && scanned.value[i] !== null) return { value: scanned.value[i], low: scanned.low[i], high: scanned.high[i], measured: true };
  return k === units.label[i] && units.effect[i] !== null ? { value: units.effect[i], low: null, high: null, measured: true } : null;
}

function effectOn(i, k) {
  return measurement(i, k) || estimate(i, k);
}

// Two digits: neither an estimate nor a handful of samples gives more. ≈ marks what was not measured.
function points(value) {
  if (value === null || value === undefined) return "–";
  const text = Number(Math.abs(value).toPrecision(2)).toString();
  return value === 0 ? "0" : (value < 0 ? "−" : "+") + text;
}

function effectText(effect) {
  return effect === null ? "–" : `${effect.measured ? "" : "≈\u00a0"}${points(effect.value)}`;
}

function effectInterval({ low, high }) {
  return low === null ? "" : `[${points(low)}, ${points(high)}]`;
}

function effectWords(effect) {
  const between = effect.low === null ? "" : `, 95 % interval ${effectInterval(effect)}`;
  return `${points(effect.value)} percentage points${between}, ${effect.measured ? "measured by a scan" : "first-order estimate"}`;
}

// Whether the interval lies on one side of zero.
function isClear({ low, high }) {
  return low === null || low > 0 || high < 0;
}

// A bar from zero with its interval. `from` and `to` are the ends of the track.
function effectTrack(effect, from, to, measured = null) {
  const at = (value) => (100 * (Math.min(to, Math.max(from, value)) - from)) / (to - from);
  const track = el("span", { class: "track" });
  const mark = (kind, start, end = start) => {
    const piece = el("i", { class: kind });
    piece.style.left = `${at(Math.min(start, end)).toFixed(2)}%`;
    if (end !== start) piece.style.width = `${Math.abs(at(end) - at(start)).toFixed(2)}%`;
    track.append(piece);
  };
  mark(`value ${effect.value < 0 ? "leaves" : "comes"}${isClear(effect) ? "" : " unclear"}`, 0, effect.value);
  if (effect.low !== null) mark("span", effect.low, effect.high);
  mark("zero", 0);
  if (measured) mark("measured", measured.value);
  return track;
}

// The ends of the track for some effects: wide intervals do not squeeze the bars to less than half of it.
function effectRange(effects) {
  const longest = Math.max(...effects.map(({ value }) => Math.abs(value)), 1e-9);
  const ends = effects.flatMap(({ value, low, high }) => [value, low ?? value, high ?? value, 0]);
  return [Math.max(-2 * longest, Math.min(...ends)), Math.min(2 * longest, Math.max(...ends))];
}

const MOST_AFFECTED = 8; // classes on the page of a unit

// On the page of a unit: the classes that ablating it changes most, and its own.
function effectsChart(i) {
  if (!data.causes) return null;
  const all = data.causes.classes.map((k) => [k, estimate(i, k)]).filter(([, effect]) => effect);
  all.sort(([, a], [, b]) => Math.abs(b.value) - Math.abs(a.value));
  const rows = all.slice(0, MOST_AFFECTED);
  const own = all.find(([k]) => k === units.label[i]);
  if (own && !rows.includes(own)) rows.splice(-1, 1, own);
  const scanned = rows.map(([k]) => measurement(i, k));
  const range = effectRange([...rows.map(([, effect]) => effect), ...scanned.filter(Boolean)]);
  const list = rows.map(([k, effect], row) => {
    const entry = data.classes[k];
    const words = `${entry.name} ${effectWords(effect)}${scanned[row] ? `; measured ${points(scanned[row].value)}` : ""}`;
    return el(
      "li",
      { title: words },
      el("span", { class: k === units.label[i] ? "name own" : "name" }, chip(entry.colour), entry.name),
      effectTrack(effect, ...range, scanned[row]),
      el("b", {}, points(effect.value)),
      el("span", { class: "hidden" }, words),
    );
  });
  const keys = el("p", { class: "legend" }, el("span", {}, el("i", { class: "chip leaves" }), "leaves"), el("span", {}, el("i", { class: "chip comes" }), "comes"), effectKeys(), scanned.some(Boolean) ? el("span", {}, el("i", { class: "key ring" }), "measured by a scan") : null);
  const note = `Percentage points of the image that ablating this ${data.noun} adds to a class; below 0 the class leaves. ${rows.length} of the ${all.length} estimated classes, the most changed first.`;
  return chart("What ablating it does (first-order estimate)", note, el("ol", { class: "bars-list causal" }, list), keys);
}

function effectKeys() {
  return [
    el("span", {}, el("i", { class: "chip unclear" }), "interval includes 0"),
    el("span", {}, el("i", { class: "key span" }), "95 % interval"),
  ];
}

const LISTED_UNITS = 10; // in each list of the page of a class

// On the page of a class: the units that draw it beside those that coincide with it.
function unitsOfClass(k) {
  if (!estimatedRow.has(k) && !data.classes[k].effects) return [];
  const layer = state.layer ? data.layers.indexOf(state.layer) : null;
  const [causal, alike] = [[], []];
  for (let i = 0; i < count; i++) {
    if (layer !== null && units.layer[i] !== layer) continue;
    const effect = effectOn(i, k);
    if (effect && effect.value < 0) causal.push([i, effect]);
    const rival = units.rivals[i].find(([index]) => index === k);
    if (rival && rival[1] > 0) alike.push([i, rival[1], rival[5] ?? rival[4]]);
  }
  causal.sort(([, a], [, b]) => a.value - b.value);
  alike.sort(([, a], [, b]) => b - a);
  const ranks = (list) => new Map(list.map(([i], rank) => [i, rank + 1]));
  const [byEffect, byIou] = [ranks(causal), ranks(alike)];
  const isBoth = (i) => byEffect.get(i) <= LISTED_UNITS && byIou.get(i) <= LISTED_UNITS;
  const [drawing, coinciding] = [causal.slice(0, LISTED_UNITS), alike.slice(0, LISTED_UNITS)];
  const range = effectRange(drawing.map(([, { value, low, high }]) => ({ value, low, high })));
  const row = (i, middle, text, rank, words) => {
    const name = `${data.layers.length > 1 ? `${data.layers[units.layer[i]]} · ` : ""}${units.unit[i]} `;
    const label = el("span", { class: units.labelled[i] ? "" : "pale" }, units.label[i] < 0 ? "" : chip(labelOf(i).colour), labelText(i));
    const link = el("a", { href: address({ ...state, open: i, page: undefined }), title: words }, el("span", { class: "name" }, name, label), middle, el("b", {}, text), el("span", { class: "muted" }, rank ? `${rank}.` : "–"));
    return el("li", { class: isBoth(i) ? "both" : "" }, link);
  };
  const head = (value, other) => el("p", { class: "list-head", "aria-hidden": "true" }, el("span", {}, data.noun), el("span", {}), el("span", {}, value), el("span", {}, other));
  const both = drawing.filter(([i]) => isBoth(i)).length;
  const labelled = drawing.filter(([i]) => units.labelled[i] && units.label[i] === k).length;
  const name = data.classes[k].name;
  const all = el("a", { href: address({ view: "units", on: name, sort: "effect" }) }, `all ${data.noun}s by their effect on ${name}`);
  const drawn = el(
    "section",
    {},
    el("h3", {}, `${plural()} that draw it `, el("small", {}, "by their ", term("effect"))),
    el("p", { class: "muted" }, drawing.length ? `Ablating the ${data.noun} takes away so many percentage points of the image. ` : `No ${data.noun} takes it away. `, drawing.length ? el("strong", {}, `${labelled} of these ${drawing.length} ${labelled === 1 ? "is" : "are"} also labelled with it.`) : ""),
    drawing.length ? head("points", "by IoU") : "",
    el("ol", { class: "bars-list causal units-of" }, drawing.map(([i, effect]) => row(i, effectTrack(effect, ...range), effectText(effect), byIou.get(i), `${effectWords(effect)}; ${byIou.has(i) ? `${byIou.get(i)}. by IoU` : "not among its best classes by IoU"}`))),
    el("p", { class: "legend" }, effectKeys()),
    el("p", { class: "muted" }, "≈: first-order estimate. ", all),
  );
  const coincident = el(
    "section",
    {},
    el("h3", {}, `${plural()} that coincide with it `, el("small", {}, "by ", term("IoU"))),
    el("p", { class: "muted" }, `The ${data.noun}'s region covers it, which does not say that it draws it. `, drawing.length && coinciding.length ? el("strong", {}, `${both} of these ${coinciding.length} ${both === 1 ? "is" : "are"} in both lists.`) : ""),
    coinciding.length ? head("IoU", "by effect") : "",
    el("ol", { class: "bars-list causal units-of" }, coinciding.map(([i, iou, base]) => row(i, iouBar(iou, base), score(iou, 2), byEffect.get(i), `IoU ${score(iou)}, ${BASE} ${score(base)}; ${byEffect.has(i) ? `${byEffect.get(i)}. by effect` : "ablating it does not take the class away"}`))),
    el("p", { class: "legend" }, el("span", {}, el("i", { class: "chip both" }), "in both lists")),
  );
  return [el("div", { class: "columns causes" }, drawn, coincident)];
}

function plural() {
  return `${data.noun[0].toUpperCase()}${data.noun.slice(1)}s`;
}
