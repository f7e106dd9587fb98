"use strict";
// What all scripts share: the data, the address, and the making of elements. Text is only ever inserted as text.
const data = JSON.parse(document.getElementById("data").textContent);
const units = data.units;
const count = units.unit.length;
const byAddress = new Map(units.unit.map((unit, i) => [`${units.layer[i]}/${unit}`, i]));
const classNumber = new Map(data.classes.map((entry, k) => [entry.name, k]));

function el(name, attributes, ...children) {
  const element = name.includes(":")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) if (value !== null) element.setAttribute(key, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function score(value, digits = 3) {
  return value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−");
}

function signed(value, digits = 3) {
  return value === null || value === undefined ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(digits);
}

function percent(value, digits = 0) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

function interval(low, high) {
  return low === null || low === undefined ? "" : `[${score(low)}, ${score(high)}]`;
}

// The words for the part of an IoU that needs no look at the content of the images.
const BASE = data.tested ? "position" : "chance";

function baseIou(i) {
  return data.tested ? units.position_iou[i] : units.chance_iou[i];
}

function iouText(i) {
  const interval95 = units.iou_low[i] === null ? "" : `, 95 % interval ${interval(units.iou_low[i], units.iou_high[i])}`;
  const q = data.tested && units.q_value[i] !== null ? `, q ${units.q_value[i].toPrecision(2)}` : "";
  return `IoU ${score(units.iou[i])}: ${BASE} ${score(baseIou(i))}, beyond ${signed(units.iou[i] - baseIou(i))}${interval95}${q}`;
}

// One bar for an IoU in two parts: what position alone gives, and what is beyond. All bars of the page have one scale.
function splitBar(i) {
  return iouBar(units.iou[i] || 0, baseIou(i) || 0, { role: "img", "aria-label": iouText(i), title: iouText(i) });
}

function iouBar(iou, base, attributes) {
  const bar = el("span", { class: "split", ...attributes });
  for (const [kind, value] of [["base", Math.min(iou, base)], ["beyond", Math.max(0, iou - base)]]) {
    const part = el("i", { class: kind });
    part.style.width = `${(100 * Math.min(1, value / data.scale)).toFixed(1)}%`;
    bar.append(part);
  }
  return bar;
}

function tierChip(i) {
  return units.tier[i] ? el("span", { class: `tier ${units.tier[i].replace(" ", "-")}` }, units.tier[i]) : "";
}

function chip(colour) {
  const square = el("i", { class: "chip" });
  square.style.background = colour;
  return square;
}

function labelOf(i) {
  const index = units.label[i];
  return index < 0 ? null : data.classes[index];
}

function labelText(i) {
  const label = labelOf(i);
  return label ? label.name : units.state[i] === "ok" ? "no label" : units.state[i];
}

// A picture that leads to the page of its sample. On a card only the pointer reaches it: 300 stops of the tab key are too
// many, and the same pictures are in the panel.
function samplePicture(sample, outline, alt, i, attributes) {
  return el("a", { href: sampleAddress(sample, i), ...attributes }, picture(sample, outline, alt));
}

// A sample's image, its segmentation above it, and a region's outline above both.
function picture(sample, outline, alt) {
  const [image, labels] = data.samples[sample];
  const stage = el("span", { class: "stage" }, el("img", { loading: "lazy", src: image, alt }));
  stage.style.aspectRatio = `${data.image[1]} / ${data.image[0]}`;
  stage.append(el("img", { class: "labels sharp", loading: "lazy", src: labels, alt: "" }));
  if (outline) stage.append(outlined(outline, outline));
  return stage;
}

// A region over a picture: its border, and around it a shade. Paths are in units of half a pixel of the grid.
function outlined(border, area) {
  const side = 2 * data.grid;
  return el(
    "svg:svg",
    { class: "region", viewBox: `0 0 ${side} ${side}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    el("svg:path", { class: "shade", d: `M0 0H${side}V${side}H0z${area}`, "fill-rule": "evenodd" }),
    el("svg:path", { class: "casing", d: border }),
    el("svg:path", { d: border }),
  );
}

// The address: #overview, #LAYER/unit=57, #class=tree&sort=iou, #sample=12, #intervention=NAME. LAYER/ without a unit is
// a filter. `missing` is what the address names and the run does not have.
const PAGES = ["overview", "units", "classes", "interventions", "repairs"];
const NAMED = { intervention: "interventions", artifacts: "repairs", repair: "repairs" }; // #KIND=NAME, and its list
const KEYS = ["unit", "find", "layer", "class", "category", "min", "max", "on", "effect", "labelled", "sort", "reverse", "page"];

function parseAddress(hash) {
  let text = hash.replace(/^#/, "");
  if (text === "" || PAGES.includes(text)) return { view: text || "overview" };
  const state = { view: "units" };
  const slash = text.indexOf("/");
  const equals = text.indexOf("=");
  let layerName = "";
  if (slash >= 0 && (equals < 0 || slash < equals)) {
    layerName = decoded(text.slice(0, slash));
    text = text.slice(slash + 1);
  }
  const parameters = new URLSearchParams(text);
  for (const kind of Object.keys(NAMED)) if (parameters.has(kind)) return parseNamed(kind, parameters.get(kind));
  if (parameters.has("sample")) return parseSample(parameters);
  for (const key of KEYS) if (parameters.get(key)) state[key] = parameters.get(key);
  const layer = layerName ? data.layers.indexOf(layerName) : 0;
  if (layer < 0) state.missing = `There is no layer ${layerName} in this run. Its layers: ${data.layers.join(", ")}.`;
  else if (state.unit !== undefined) {
    state.open = byAddress.get(`${layer}/${Number(state.unit)}`);
    if (state.open === undefined) state.missing = `There is no ${data.noun} ${state.unit} in ${data.layers[layer]}.`;
  } else if (layerName) state.layer = layerName;
  delete state.unit;
  const unknown = [state.class, state.on].find((name) => name && !classNumber.has(name));
  if (unknown) state.missing = `There is no class ${unknown} in this run.`;
  else if (state.layer && !data.layers.includes(state.layer)) state.missing = `There is no layer ${state.layer} in this run.`;
  return state;
}

function parseNamed(kind, name) {
  const views = [...document.querySelectorAll(`[data-${kind}]`)];
  if (views.some((view) => view.dataset[kind] === name)) return { view: kind, name };
  const list = document.getElementById(`view-${NAMED[kind]}`) ? NAMED[kind] : "overview";
  return { view: list, missing: `There is no ${kind === "artifacts" ? "search for artifacts" : kind} ${name} in this report.` };
}

function parseSample(parameters) {
  const sample = Number(parameters.get("sample"));
  if (!(sample in data.samples)) {
    return { view: "overview", missing: `This report shows no sample ${parameters.get("sample")}. It shows ${Object.keys(data.samples).length} of the run's samples.` };
  }
  const [layer, unit] = [data.layers.indexOf((parameters.get("unit") || "").replace(/\/\d+$/, "")), /\d+$/.exec(parameters.get("unit") || "")];
  return { view: "sample", name: sample, region: unit ? byAddress.get(`${layer}/${Number(unit[0])}`) : undefined };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function address(state) {
  if (state.view in NAMED) return `#${state.view}=${encodeURIComponent(state.name)}`;
  if (state.view === "sample") return sampleAddress(state.name, state.region);
  if (state.view !== "units") return `#${state.view}`;
  const parameters = new URLSearchParams();
  if (state.open !== undefined) parameters.set("unit", units.unit[state.open]);
  for (const key of KEYS) if (key !== "unit" && state[key]) parameters.set(key, state[key]);
  const text = parameters.toString();
  if (state.open !== undefined) return `#${encodeURIComponent(data.layers[units.layer[state.open]])}/${text}`;
  return text ? `#${text}` : "#units";
}

// The page of a sample, with the region of unit `i` if there is one.
function sampleAddress(sample, i) {
  const unit = i === undefined ? "" : `&${new URLSearchParams({ unit: `${data.layers[units.layer[i]]}/${units.unit[i]}` })}`;
  return `#sample=${sample}${unit}`;
}
