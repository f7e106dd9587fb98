"use strict";
// Charts by step, or scatter charts of candidates. One step, or one candidate, is marked in all charts at once.
// Text is only ever inserted as text.
const data = JSON.parse(document.getElementById("data").textContent);
const fields = [...document.querySelectorAll(".field")]; // one for each entry of data.charts
const readout = document.getElementById("readout");
const unmarked = readout.textContent; // its text while nothing is marked
const EDGE = { left: 46, right: 12, top: 14, bottom: 20 };
const FEW = 30; // up to so many steps, each gets a dot
const FORMS = {
  number: (value) => String(Number(value.toPrecision(3))),
  percent: (value) => `${Number((100 * value).toPrecision(3))} %`,
  count: (value) => value.toLocaleString("en"),
};
let marked = null; // the index of a step or candidate
let drawn = [];

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function words(x, y, text, anchor, kind = "tick") {
  return svg("text", { x: x.toFixed(1), y: y.toFixed(1), "text-anchor": anchor, class: kind }, text);
}

function canvas(width, height, ...children) {
  return svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, ...children);
}

function format(value, form) {
  return value === null ? "–" : FORMS[form](value).replace("-", "−");
}

function stepText(step) {
  if (step >= 1e6 && step % 1e5 === 0) return `${step / 1e6}M`;
  return step >= 1e3 && step % 100 === 0 ? `${step / 1e3}k` : String(step);
}

const known = (values) => values.filter((value) => value !== null);

// A function from numbers to positions between two ends, in pixels with one decimal; and round numbers for ticks.
function scale(low, high, start, end, apart) {
  const position = (value) => Math.round(10 * (start + ((value - low) / (high - low)) * (end - start))) / 10;
  const least = (high - low) / (Math.abs(end - start) / apart);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= least);
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(Number((k * step).toPrecision(12)));
  return Object.assign(position, { low, start, end, ticks });
}

function grid(x, y, text, across) {
  return [
    ...y.ticks.flatMap((value) => [
      svg("path", { class: "grid", d: `M${x.start},${y(value)}H${x.end}` }),
      words(x.start - 6, y(value) + 4, text(value), "end"),
    ]),
    svg("path", { class: "axis-line", d: `M${x.start},${y.start}H${x.end}` }),
    ...x.ticks.map((value) => words(Math.min(x.end - 6, Math.max(x.start + 6, x(value))), y.start + 15, across(value), "middle")),
  ];
}

// Runs of neighbouring steps that all have a number.
function runs(values) {
  const all = [];
  values.forEach((value, k) => {
    if (value === null) return;
    if (k && values[k - 1] !== null) all.at(-1).push(k);
    else all.push([k]);
  });
  return all;
}

function lines(field, { values, low, high, real, form }) {
  const { steps, alarms } = data;
  const [width, height] = [Math.max(field.clientWidth, 160), 128];
  const signed = known(values).some((value) => value < 0); // otherwise the axis starts at zero, even if an interval reaches below
  const all = known([0, ...values, ...high, real]); // zero is always in sight, so that heights compare
  const bottom = signed ? Math.min(...all, ...known(low)) : 0;
  const top = Math.max(...all) || (signed ? 0 : 1);
  const room = 0.06 * (top - bottom);
  const [first, last] = [steps[0], steps.at(-1)];
  const x = scale(first - (first === last), last + (first === last), EDGE.left, width - EDGE.right, 45);
  const y = scale(bottom && bottom - room, top + room, height - EDGE.bottom, EDGE.top, 25);
  if (form === "count") y.ticks = y.ticks.filter(Number.isInteger);
  if (first === last) x.ticks = [first];
  const at = steps.map(x);
  const path = (run, some) => run.map((k) => `${at[k]},${y(Math.max(some[k], y.low))}`).join("L");
  const joined = runs(values);
  const dots = steps.length > FEW ? joined.filter((run) => run.length === 1).flat() : joined.flat();
  const alarmed = at.filter((_, k) => alarms[k]);
  const description = (k) => format(values[k], form) + (low[k] === null || !low.length ? "" : ` [${format(low[k], form)}, ${format(high[k], form)}]`);
  const cross = svg("path", { class: "cross" });
  const dot = svg("circle", { class: "at", r: 4 });
  const label = words(0, y.start + 15, "", "middle", "at-step");
  const over = svg("g", {}, cross, dot, label);
  const picture = canvas(
    width,
    height,
    ...grid(x, y, (value) => format(value, form), stepText),
    svg("path", { class: "alarms", d: alarmed.map((left) => `M${left},${y.end}V${y.start}`).join("") }),
    svg("path", { class: "flags", d: alarmed.map((left) => `M${left},${y.end}l-4,-7h8z`).join("") }),
    svg("path", { class: "band", d: runs(low).map((run) => `M${path(run, high)}L${path(run.toReversed(), low)}Z`).join("") }),
    svg("path", { class: "series", d: joined.map((run) => `M${path(run, values)}`).join("") }),
    ...dots.map((k) => svg("circle", { class: "dot", cx: at[k], cy: y(values[k]), r: 2.4 })),
  );
  if (real !== null) picture.append(svg("path", { class: "real", d: `M${x.start},${y(real)}H${x.end}` }));
  field.parentElement.querySelector(".real-name").textContent = real === null ? "" : `real ${format(real, form)}`;
  picture.append(over);
  field.replaceChildren(picture);
  return {
    nearest: (across) => at.reduce((best, left, k) => (Math.abs(left - across) <= Math.abs(at[best] - across) ? k : best), 0),
    show(index) {
      const k = index ?? steps.length - 1;
      field.parentElement.querySelector(".now").textContent = description(k);
      field.setAttribute("aria-valuenow", k + 1);
      const texts = [`step ${steps[k]}: ${description(k)}`, real !== null && `real images ${format(real, form)}`, alarms[k] && "alarm"];
      field.setAttribute("aria-valuetext", texts.filter(Boolean).join("; "));
      over.toggleAttribute("hidden", index === null);
      cross.setAttribute("d", `M${at[k]},${y.end}V${y.start}`);
      dot.toggleAttribute("hidden", values[k] === null);
      dot.setAttribute("cx", at[k]);
      dot.setAttribute("cy", y(values[k] ?? y.low));
      label.textContent = steps[k];
      label.setAttribute("x", Math.min(width - 24, Math.max(24, at[k])));
    },
  };
}

// The intervals of a point in both directions.
function whiskers({ x: across, y: up }, k, x, y, kind) {
  const [left, top] = [x(across.values[k]), y(up.values[k])];
  const flat = across.low[k] === null ? "" : `M${x(across.low[k])},${top}H${x(across.high[k])}`;
  const steep = up.low[k] === null ? "" : `M${left},${y(up.low[k])}V${y(up.high[k])}`;
  return svg("path", { class: `whiskers ${kind}`, d: flat + steep });
}

// Put a name where it covers no other name and no point. If there is no room, only the readout shows it.
function settle(label, [across, up], taken, x, y) {
  const { width } = label.getBBox();
  for (const far of [1, 1.9, 2.8]) {
    for (const [right, down] of [[1, -1], [-1, -1], [1, 1], [-1, 1], [0, -1.5], [0, 1.5]]) {
      const left = across + right * 7 * far - (right ? (right < 0 ? width : 0) : width / 2);
      const middle = up + down * 11 * far;
      const box = [left, middle - 8, left + width, middle + 8];
      const inside = box[0] >= x.start && box[2] <= x.end + EDGE.right && box[1] >= y.end - 4 && box[3] <= y.start;
      const covers = ([west, north, east, south]) => box[0] < east && west < box[2] && box[1] < south && north < box[3];
      if (!inside || taken.some(covers)) continue;
      label.setAttribute("x", left.toFixed(1));
      label.setAttribute("y", (middle + 4).toFixed(1));
      taken.push(box);
      return;
    }
  }
  label.remove();
}

function scatter(field, chart) {
  const { real, front } = chart;
  const { names, states } = data;
  const width = Math.max(field.clientWidth, 260);
  const height = Math.min(460, Math.max(300, 0.6 * width));
  const reach = (side, start, end) => {
    const all = known([chart, real].flatMap((entry) => (entry ? [entry[side].values, entry[side].low, entry[side].high].flat() : [])));
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const room = 0.07 * (high - low || 1);
    return scale(low - room, high + room, start, end, 50);
  };
  const x = reach("x", EDGE.left, width - EDGE.right);
  const y = reach("y", height - EDGE.bottom - 18, EDGE.top + 4);
  const present = [...names.keys()].filter((k) => chart.x.values[k] !== null && chart.y.values[k] !== null);
  const at = names.map((_, k) => [x(chart.x.values[k]), y(chart.y.values[k])]);
  const short = (name) => (name.length > 26 ? `…${name.slice(-25)}` : name); // paths differ at their end
  const labels = present.map((k) => [words(0, 0, short(names[k]), "start", `name ${states[k]}`), at[k]]);
  const ring = svg("circle", { class: "ring", r: 10 });
  const text = (value) => format(value, "number");
  const picture = canvas(
    width,
    height,
    ...grid(x, y, text, text),
    words((x.start + x.end) / 2, height - 4, chart.x.label, "middle", "axis-name"),
    words(0, 9, chart.y.label, "start", "axis-name"),
    svg("path", { class: "front", d: front.length ? `M${front.map((k) => at[k]).join("L")}` : "" }),
    ...present.map((k) => whiskers(chart, k, x, y, states[k])),
  );
  const taken = present.map((k) => at[k]).map(([across, up]) => [across - 6, up - 6, across + 6, up + 6]);
  if (real) {
    const [across, up] = [x(real.x.values[0]), y(real.y.values[0])];
    picture.append(whiskers(real, 0, x, y, "true"), svg("path", { class: "star", d: `M${across},${up - 8}l8,8l-8,8l-8,-8z` }));
    taken.push([across - 9, up - 9, across + 9, up + 9]);
    labels.unshift([words(0, 0, "real images", "start", "real-name"), [across, up]]);
  }
  const point = (k) => svg("circle", { class: `point ${states[k]}`, "data-candidate": k, cx: at[k][0], cy: at[k][1], r: states[k] === "fittest" ? 7 : 5 });
  picture.append(...present.toReversed().map(point), ...labels.map(([label]) => label), ring); // the fittest is drawn last, above the others
  field.replaceChildren(picture);
  for (const [label, point] of labels) settle(label, point, taken, x, y);
  const away = (k, across, up) => Math.hypot(at[k][0] - across, at[k][1] - up);
  return {
    nearest: (across, up) => present.reduce((best, k) => (away(k, across, up) < away(best, across, up) ? k : best), present[0]),
    show(index) {
      field.setAttribute("aria-valuenow", (index ?? 0) + 1);
      field.setAttribute("aria-valuetext", data.descriptions[index ?? 0]);
      ring.toggleAttribute("hidden", !present.includes(index));
      if (present.includes(index)) [ring.cx.baseVal.value, ring.cy.baseVal.value] = at[index];
    },
  };
}

function mark(index) {
  marked = index;
  for (const chart of drawn) chart.show(index);
  readout.textContent = index === null ? unmarked : data.descriptions[index];
}

function draw() {
  drawn = fields.map((field, k) => (data.names ? scatter : lines)(field, data.charts[k]));
  mark(marked);
}

fields.forEach((field, chart) => {
  const last = data.descriptions.length - 1;
  const start = data.names ? 0 : last;
  const follow = (event) => {
    const box = field.getBoundingClientRect();
    mark(drawn[chart].nearest(event.clientX - box.left, event.clientY - box.top) ?? null);
    if (event.type === "pointerdown") field.focus({ preventScroll: true }); // so that it stays marked when a finger is lifted
  };
  field.addEventListener("pointermove", follow);
  field.addEventListener("pointerdown", follow);
  field.addEventListener("pointerleave", () => document.activeElement === field || mark(null));
  field.addEventListener("focus", () => mark(marked ?? start));
  field.addEventListener("blur", () => mark(null));
  field.addEventListener("keydown", (event) => {
    const from = marked ?? start;
    const keys = { ArrowLeft: from - 1, ArrowDown: from - 1, ArrowRight: from + 1, ArrowUp: from + 1, Home: 0, End: last };
    if (!(event.key in keys)) return;
    event.preventDefault();
    mark(Math.min(last, Math.max(0, keys[event.key])));
  });
});
window.addEventListener("resize", draw);
draw();
