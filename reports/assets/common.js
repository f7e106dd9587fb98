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
  return value === null || value === undefined ? "–" : value.toFixed(digits);
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

// A sample's image, its segmentation above it, and a region's outline above both.
function picture(sample, outline, alt) {
  const [image, labels] = data.samples[sample];
  const side = 2 * data.grid;
  const stage = el("span", { class: "stage" }, el("img", { loading: "lazy", src: image, alt }));
  stage.style.aspectRatio = `${data.image[1]} / ${data.image[0]}`;
  stage.append(el("img", { class: "labels sharp", loading: "lazy", src: labels, alt: "" }));
  if (outline) {
    const frame = `M0 0H${side}V${side}H0z`;
    stage.append(
      el(
        "svg:svg",
        { class: "region", viewBox: `0 0 ${side} ${side}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        el("svg:path", { class: "shade", d: frame + outline, "fill-rule": "evenodd" }),
        el("svg:path", { class: "casing", d: outline }),
        el("svg:path", { d: outline }),
      ),
    );
  }
  return stage;
}

// The address: #overview, #LAYER/unit=57, #class=tree&sort=iou, #intervention=NAME. LAYER/ without a unit is a filter.
const PAGES = ["overview", "units", "classes", "interventions", "repairs"];
const NAMED = { intervention: "interventions", artifacts: "repairs", repair: "repairs" }; // #KIND=NAME, and its list
const KEYS = ["unit", "find", "layer", "class", "category", "min", "max", "labelled", "sort", "reverse", "page"];

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
  for (const kind of Object.keys(NAMED)) if (parameters.has(kind)) return { view: kind, name: parameters.get(kind) };
  for (const key of KEYS) if (parameters.get(key)) state[key] = parameters.get(key);
  if (state.unit !== undefined) {
    const layer = layerName ? data.layers.indexOf(layerName) : 0;
    state.open = byAddress.get(`${layer}/${Number(state.unit)}`);
    delete state.unit;
  } else if (layerName) state.layer = layerName;
  return state;
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
  if (state.view !== "units") return `#${state.view}`;
  const parameters = new URLSearchParams();
  if (state.open !== undefined) parameters.set("unit", units.unit[state.open]);
  for (const key of KEYS) if (key !== "unit" && state[key]) parameters.set(key, state[key]);
  const text = parameters.toString();
  if (state.open !== undefined) return `#${encodeURIComponent(data.layers[units.layer[state.open]])}/${text}`;
  return text ? `#${text}` : "#units";
}
