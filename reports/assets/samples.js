// The page of a sample: its picture, the classes in it, and the units that are active in it, or at one point of it.
// Where the run kept its featuremaps all units are known; of other samples only those that are most active in them.
const GRID = data.grid;
const LISTED = 24; // units, before all are asked for
const decodedSamples = new Map(); // sample -> {labels, maps}
const flags = new Set();
let point = null; // [column, row] of the grid that is looked at
let pinned = false; // by a click or a key, so that the pointer no longer moves it

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function hasMaps(sample) {
  return data.maps !== null && sample < data.maps.first.length;
}

// The labels of a sample, and of each layer the maps of its units, one after the other.
async function sampleMaps(sample) {
  if (!decodedSamples.has(sample)) {
    const bytes = await inflated(data.maps.first[sample]);
    const labels = new Int16Array(bytes.buffer.slice(0, 2 * GRID * GRID));
    const maps = [];
    let start = 2 * GRID * GRID;
    for (const [count, height, width] of data.maps.shapes) {
      maps.push(bytes.subarray(start, start + count * height * width));
      start += count * height * width;
    }
    decodedSamples.set(sample, { labels, maps });
  }
  return decodedSamples.get(sample);
}

function mapOf(kept, i) {
  const [, height, width] = data.maps.shapes[units.layer[i]];
  const start = units.unit[i] * height * width;
  return { values: kept.maps[units.layer[i]].subarray(start, start + height * width), height, width };
}

// Source cells and weight under each of GRID target pixels: bilinear, half-pixel centres, as a run enlarges its maps.
const axes = new Map();
function axis(size) {
  if (!axes.has(size)) {
    axes.set(
      size,
      Array.from({ length: GRID }, (_, k) => {
        const centre = Math.min(size - 1, Math.max(0, ((k + 0.5) * size) / GRID - 0.5));
        const low = Math.floor(centre);
        return [low, Math.min(low + 1, size - 1), centre - low];
      }),
    );
  }
  return axes.get(size);
}

function valueAt({ values, height, width }, column, row) {
  const [x0, x1, x] = axis(width)[column];
  const [y0, y1, y] = axis(height)[row];
  const above = values[y0 * width + x0] * (1 - x) + values[y0 * width + x1] * x;
  const below = values[y1 * width + x0] * (1 - x) + values[y1 * width + x1] * x;
  return above * (1 - y) + below * y;
}

// The same for all pixels: first between two rows of the map, then along that row.
function enlarged({ values, height, width }) {
  const out = new Float32Array(GRID * GRID);
  const between = new Float32Array(width);
  const [rows, columns] = [axis(height), axis(width)];
  for (let row = 0; row < GRID; row++) {
    const [y0, y1, y] = rows[row];
    for (let k = 0; k < width; k++) between[k] = values[y0 * width + k] * (1 - y) + values[y1 * width + k] * y;
    for (let column = 0; column < GRID; column++) {
      const [x0, x1, x] = columns[column];
      out[row * GRID + column] = between[x0] * (1 - x) + between[x1] * x;
    }
  }
  return out;
}

function greatest(values) {
  return values.reduce((most, value) => (value > most ? value : most), -Infinity);
}

// How far a value lies on the way from the unit's threshold to its greatest activation.
function strength(i, value) {
  return (value - units.step[i]) / Math.max(255 - units.step[i], 1e-6);
}

// The units that exceed their threshold in a sample, or at a point of it, the strongest first: [unit, strength].
async function activeUnits(sample, at) {
  if (!hasMaps(sample)) return topUnits(sample, at);
  const kept = await sampleMaps(sample);
  if (!at && kept.active) return kept.active;
  const active = [];
  for (let i = 0; i < count; i++) {
    if (units.step[i] === null) continue;
    const map = mapOf(kept, i);
    const value = at ? valueAt(map, ...at) : greatest(map.values) > units.step[i] ? greatest(enlarged(map)) : -1;
    if (value > units.step[i]) active.push([i, strength(i, value)]);
  }
  active.sort(([, a], [, b]) => b - a);
  if (!at) kept.active = active;
  return active;
}

// The units that have a sample among their most-activating ones; how strong they are in it is not known.
let unitsOfTop = null;
function topUnits(sample, at) {
  if (!unitsOfTop) {
    unitsOfTop = new Map();
    units.top.forEach((tops, i) => tops.forEach(([top, outline], order) => {
      if (!unitsOfTop.has(top)) unitsOfTop.set(top, []);
      unitsOfTop.get(top).push([i, null, order, outline]);
    }));
  }
  const inside = (outline) => brush.isPointInPath(new Path2D(outline), 2 * at[0] + 1, 2 * at[1] + 1, "evenodd");
  return (unitsOfTop.get(sample) || []).filter(([, , , outline]) => !at || inside(outline)).sort((a, b) => a[2] - b[2]);
}
const brush = document.createElement("canvas").getContext("2d");

// A canvas of a map's colours, which the browser smooths like the run does.
const HEAT = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // magma
function heatCanvas({ values, height, width }) {
  return painted(width, height, "heat", (k) => {
    const at = (values[k] / 255) * (HEAT.length - 1);
    const low = Math.min(Math.floor(at), HEAT.length - 2);
    return [...HEAT[low].map((from, channel) => from + (HEAT[low + 1][channel] - from) * (at - low)), 215];
  });
}

// The region of a unit: where its enlarged map exceeds the threshold. The border runs along the edges of pixels.
function regionOf(map, step) {
  const values = enlarged(map);
  const inside = (row, column) => row >= 0 && column >= 0 && row < GRID && column < GRID && values[row * GRID + column] > step;
  const [border, area] = [[], []];
  for (let row = 0; row < GRID; row++) {
    for (let column = 0; column < GRID; column++) {
      if (!inside(row, column)) continue;
      const [x, y] = [2 * column, 2 * row];
      area.push(`M${x} ${y}h2v2h-2z`);
      if (!inside(row - 1, column)) border.push(`M${x} ${y}h2`);
      if (!inside(row + 1, column)) border.push(`M${x} ${y + 2}h2`);
      if (!inside(row, column - 1)) border.push(`M${x} ${y}v2`);
      if (!inside(row, column + 1)) border.push(`M${x + 2} ${y}v2`);
    }
  }
  return outlined(border.join(""), area.join(""));
}

function painted(width, height, kind, colour) {
  const canvas = el("canvas", { width, height, class: kind, "aria-hidden": "true" });
  const pixels = canvas.getContext("2d").createImageData(width, height);
  for (let k = 0; k < width * height; k++) pixels.data.set(colour(k), 4 * k);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function drawSample(sample, chosen) {
  [point, pinned] = [null, false];
  const shown = Object.keys(data.samples).map(Number);
  const at = shown.indexOf(sample);
  const step = (to, text) => (to === undefined ? el("span", { class: "muted" }, text) : el("a", { class: "step", href: sampleAddress(to) }, text));
  const stage = picture(sample, "", `Sample ${sample}`);
  const cross = el("i", { class: "cross", hidden: "" });
  const look = el("button", {
    type: "button",
    class: "look",
    "aria-label": `Sample ${sample}: click a point, or move it with the arrow keys, to list the ${data.noun}s that are active there`,
  });
  stage.append(cross);
  const frame = el("div", { class: "enlarged" }, stage, look);
  const toggle = (name, text) => {
    const box = el("input", { type: "checkbox", name });
    box.addEventListener("change", () => frame.classList.toggle(`show-${name}`, box.checked));
    return el("label", {}, box, ` ${text} `);
  };
  const heatSwitch = hasMaps(sample) ? toggle("heat", `heat map of the ${data.noun} that is pointed at`) : null;
  const box = el("input", { type: "checkbox", "data-flag": sample });
  const list = el("section", { class: "active-units" });
  $("view-sample").replaceChildren(
    el("p", { class: "crumb" }, el("a", { href: "#overview" }, "← Overview"), " · ", step(shown[at - 1], "← previous"), " · ", step(shown[at + 1], "next →")),
    el("h2", { class: "title" }, `Sample ${sample}`),
    el(
      "div",
      { class: "columns" },
      el(
        "section",
        {},
        frame,
        el("p", { class: "switches" }, toggle("labels", "segmentation"), heatSwitch),
        el("p", { class: "flag-line" }, el("label", {}, box, " tick this sample "), el("span", { class: "flag-export" })),
      ),
      list,
      el("section", {}, el("h3", {}, "Classes in it"), areaBars(sample)),
    ),
  );
  const draw = () => drawActive(sample, list, frame, chosen);
  pointable(frame, (to) => {
    point = to && to.map((value) => Math.min(GRID - 1, Math.max(0, value)));
    cross.hidden = !point;
    if (point) [cross.style.left, cross.style.top] = point.map((value) => `${(100 * (value + 0.5)) / GRID}%`);
    draw();
  });
  draw();
  showFlags();
}

// Moves the point of the large picture by mouse, finger and keys; null means the whole picture.
function pointable(frame, move) {
  const look = frame.querySelector(".look");
  const under = (event) => {
    const area = frame.getBoundingClientRect();
    return [Math.floor((GRID * (event.clientX - area.left)) / area.width), Math.floor((GRID * (event.clientY - area.top)) / area.height)];
  };
  const follows = (event) => !pinned && event.pointerType === "mouse";
  look.addEventListener("pointermove", (event) => follows(event) && move(under(event)));
  look.addEventListener("pointerleave", (event) => follows(event) && move(null));
  look.addEventListener("click", (event) => {
    pinned = true;
    move(event.detail === 0 ? point || [GRID >> 1, GRID >> 1] : under(event)); // 0: by Enter or the space bar
  });
  look.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      pinned = false;
      move(null);
    }
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    pinned = true;
    const stride = event.shiftKey ? 8 : 2;
    const [x, y] = point || [GRID >> 1, GRID >> 1];
    move([x + stride * by[0], y + stride * by[1]]);
  });
}

function areaBars(sample) {
  const rows = data.areas[sample].map(([index, share]) => {
    const bar = el("i", {});
    [bar.style.width, bar.style.background] = [`${100 * share}%`, data.classes[index].colour];
    const name = el("span", { class: "name" }, chip(data.classes[index].colour), data.classes[index].name);
    return el("li", {}, el("a", { href: address({ view: "units", class: data.classes[index].name }) }, name, el("span", { class: "track" }, bar), el("b", {}, percent(share, 1))));
  });
  return el("ol", { class: "bars-list areas" }, rows);
}

let drawing = 0; // only the latest of several lists that are being made is shown
async function drawActive(sample, list, frame, chosen) {
  const turn = ++drawing;
  const at = point;
  const active = await activeUnits(sample, at);
  const kept = hasMaps(sample) ? await sampleMaps(sample) : null;
  if (turn !== drawing) return;
  const name = kept && at ? data.classes[kept.labels[at[1] * GRID + at[0]]]?.name || "unlabelled" : null;
  const where = at ? `at this point${name ? ` (${name})` : ""}` : "in this sample";
  const title = kept ? `${active.length} of ${count} ${data.noun}s are active ${where}` : `${active.length} ${data.noun}s are most active ${at ? "here" : "in this sample"}`;
  const show = (entry) => showRegion(frame, kept, entry);
  const items = active.map((entry) => activeItem(entry, sample, show));
  const rest = items.splice(LISTED);
  const rows = el("ol", { class: "bars-list active" }, items);
  const more = rest.length ? el("button", { type: "button" }, `Show all ${active.length}`) : null;
  if (more) more.addEventListener("click", () => (rows.append(...rest), more.remove()));
  list.replaceChildren(el("h3", { "aria-live": "polite" }, title), el("p", { class: "muted" }, sampleNote(kept)), rows, more || "");
  show(chosen === undefined ? null : active.find(([i]) => i === chosen) || (kept ? [chosen] : null));
}

function sampleNote(kept) {
  if (kept) {
    const coarse = data.maps.exact.every(Boolean) ? "" : " The maps were kept coarser than the layers are, so borders are approximate.";
    return `Point at the picture, or click it, to see which ${data.noun}s are active there. The bar runs from the threshold to the greatest activation in all samples.${coarse}`;
  }
  const why = data.maps ? `This run kept the featuremaps of its first ${data.maps.first.length} samples` : "This run is of an earlier version, which kept no featuremaps";
  return `${why}; of this sample only those ${data.noun}s are known that have it among their ${units.top[0]?.length || 0} most-activating ones.`;
}

function activeItem(entry, sample, show) {
  const [i, value] = entry;
  const bar = el("i", {});
  bar.style.width = `${value === null ? 0 : Math.min(100, Math.max(1, 100 * value)).toFixed(1)}%`;
  const layer = data.layers.length > 1 ? `${data.layers[units.layer[i]]} · ` : "";
  const label = labelOf(i);
  const link = el(
    "a",
    { href: address({ view: "units", open: i }) },
    el("span", { class: "name" }, `${layer}${units.unit[i]} `, el("span", { class: units.labelled[i] ? "" : "pale" }, label ? chip(label.colour) : "", labelText(i))),
    value === null ? el("span", { class: "muted" }, `${entry[2] + 1}. of its samples`) : el("span", { class: "track", title: `${percent(value)} of the way from threshold to peak` }, bar),
    tierChip(i) || el("span", {}),
  );
  link.addEventListener("pointerenter", () => show(entry));
  link.addEventListener("focus", () => show(entry));
  return el("li", {}, link);
}

// The region, and the heat map, of a unit over the large picture.
function showRegion(frame, kept, entry) {
  frame.querySelectorAll(".region, .heat").forEach((drawn) => drawn.remove());
  if (!entry) return;
  const stage = frame.querySelector(".stage");
  if (!kept) stage.append(outlined(entry[3], entry[3]));
  else stage.append(heatCanvas(mapOf(kept, entry[0])), regionOf(mapOf(kept, entry[0]), units.step[entry[0]] ?? 256));
}

// Ticked samples, which can be saved as the file that --flags of dissect artifacts reads.
function showFlags() {
  for (const box of document.querySelectorAll("[data-flag]")) box.checked = flags.has(box.dataset.flag);
  const numbers = [...flags].map(Number).sort((a, b) => a - b);
  const text = `# samples ticked in the report of ${data.title}\n${numbers.join("\n")}\n`;
  for (const place of document.querySelectorAll(".flag-export")) {
    const href = `data:text/plain;charset=utf-8,${encodeURIComponent(text)}`;
    const link = el("a", { class: "button", download: "flags.txt", href }, `Export flags (${numbers.length})`);
    place.replaceChildren(numbers.length ? link : el("span", { class: "muted" }, "none is ticked"));
  }
}

document.addEventListener("change", (event) => {
  const sample = event.target.dataset?.flag;
  if (sample === undefined) return;
  if (event.target.checked) flags.add(sample);
  else flags.delete(sample);
  showFlags();
});
