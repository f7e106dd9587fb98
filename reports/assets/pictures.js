"use strict";
// Pictures before and after an edit, maps of cells, ticked samples, and commands to copy.
// An element of the page, or, where `name` begins with svg:, of a drawing. Text is only ever inserted as text.
function node(name, attributes, ...children) {
  const drawing = name.startsWith("svg:");
  const element = drawing
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input[type=range]");
  const move = () => pair.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
  pair.addEventListener("pointerdown", (event) => event.pointerType !== "mouse" && pair.classList.add("flipped"));
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
    pair.addEventListener(end, () => pair.classList.remove("flipped"));
  }
}

// The pictures of all strengths of an edit: a dial chooses which of them stands for "after".
function turn(group, dial, step) {
  group.querySelector(".dial output").textContent = JSON.parse(dial.dataset.texts)[step];
  dial.setAttribute("aria-valuetext", JSON.parse(dial.dataset.texts)[step]);
  for (const pair of group.querySelectorAll(".pair[data-images]")) {
    for (const [kind, image] of [["images", ".images.after"], ["labels", ".labels.after"], ["difference", ".difference"]]) {
      pair.querySelector(image).src = JSON.parse(pair.dataset[kind])[step];
    }
  }
}

function flip(group, before) {
  group.classList.toggle("flipped", before);
  const button = group.querySelector(".flipper");
  button.setAttribute("aria-pressed", before);
  button.textContent = before ? "show after" : "show before";
}

const groupsOfPairs = [...document.querySelectorAll(".pairs")];
for (const group of groupsOfPairs) {
  const change = () => {
    for (const chosen of group.querySelectorAll("input[data-choice]:checked")) group.dataset[chosen.dataset.choice] = chosen.value;
    group.classList.toggle("show-region", !!group.querySelector("input[name=outline]")?.checked);
    flip(group, false);
  };
  group.querySelector(".switches").addEventListener("change", change);
  change();
  group.querySelector(".flipper").addEventListener("click", () => flip(group, !group.classList.contains("flipped")));
  const dial = group.querySelector(".dial input");
  dial?.addEventListener("input", () => turn(group, dial, Number(dial.value)));
}
// B, held down, shows the images before the edit.
function flipAll(event, before) {
  if (event.key.toLowerCase() !== "b" || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=radio], [type=checkbox], [type=range]), select, textarea, dialog")) return;
  for (const group of groupsOfPairs) if (group.dataset.view === "flip") flip(group, before);
}
document.addEventListener("keydown", (event) => flipAll(event, true));
document.addEventListener("keyup", (event) => flipAll(event, false));

// A map of cells above a sample: what editing a cell alone does. One sample is shown, the others can be chosen.
function cellMap(box) {
  const { label, largest, maps } = JSON.parse(box.querySelector("script").textContent);
  let [shown, at] = [0, 0];
  const stage = node("div", { class: "stage", tabindex: "0", role: "slider", "aria-label": `Cells of the layer, and the change of ${label}` });
  const readout = node("p", { class: "cell-readout" });
  const choices = node("p", { class: "cell-samples", role: "group", "aria-label": "Sample" });
  const details = node("details", {}, node("summary", {}, "The values as a table"));
  const signed = (value) => (value === null ? "–" : `${value > 0 ? "+" : value < 0 ? "−" : ""}${Math.abs(value).toFixed(3)}`);
  const columns = () => maps[shown].values[0].length;
  const describe = (k) => {
    const [row, column] = [Math.floor(k / columns()), k % columns()];
    return `Row ${row + 1}, column ${column + 1}: ${signed(maps[shown].values[row][column])} percentage points of ${label}`;
  };
  const mark = (k) => {
    at = Math.min(maps[shown].values.length * columns() - 1, Math.max(0, k));
    for (const [name, value] of [["now", at + 1], ["text", describe(at)]]) stage.setAttribute(`aria-value${name}`, value);
    readout.textContent = describe(at);
    const marker = stage.querySelector(".marker");
    marker.setAttribute("x", at % columns());
    marker.setAttribute("y", Math.floor(at / columns()));
  };
  const table = () => {
    details.querySelector(".scroller")?.remove();
    if (!details.open) return;
    const { values, sample } = maps[shown];
    const head = node("tr", {}, node("th", {}, "row"), ...values[0].map((_, k) => node("th", { class: "number" }, `${k + 1}`)));
    const body = values.map((row, k) => node("tr", {}, node("th", { scope: "row" }, `${k + 1}`), ...row.map((value) => node("td", { class: "number" }, signed(value)))));
    const caption = node("caption", { class: "muted" }, `Sample ${sample}: change of ${label} in percentage points, by row and column of the edited cell`);
    details.append(node("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": `Values of sample ${sample}` }, node("table", { class: "plain" }, caption, node("thead", {}, head), node("tbody", {}, ...body))));
  };
  const show = (k) => {
    shown = k;
    const { values, picture, sample } = maps[k];
    const cells = values.flatMap((row, y) =>
      row.map((value, x) => node("svg:rect", { x, y, width: 1, height: 1, class: value < 0 ? "less" : "more", "fill-opacity": (0.85 * Math.min(1, Math.abs(value) / largest) ** 0.6).toFixed(3) })),
    );
    const marker = node("svg:rect", { class: "marker", width: 1, height: 1 });
    const drawing = node("svg:svg", { viewBox: `0 0 ${values[0].length} ${values.length}`, preserveAspectRatio: "none", "aria-hidden": "true" }, ...cells, marker);
    stage.replaceChildren(node("img", { src: picture, alt: `Sample ${sample}` }), drawing);
    stage.setAttribute("aria-valuemin", 1);
    stage.setAttribute("aria-valuemax", values.length * values[0].length);
    [...choices.children].forEach((button, index) => button.setAttribute("aria-pressed", index === k));
    const flat = values.flat();
    mark(flat.indexOf(Math.max(...flat)));
    table();
  };
  const point = (event) => {
    const frame = stage.getBoundingClientRect();
    const across = (size, length, from, position) => Math.min(size - 1, Math.max(0, Math.floor(((position - from) / length) * size)));
    const column = across(columns(), frame.width, frame.left, event.clientX);
    mark(across(maps[shown].values.length, frame.height, frame.top, event.clientY) * columns() + column);
  };
  stage.addEventListener("pointermove", point);
  stage.addEventListener("pointerdown", point);
  stage.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const to = at + moves[event.key];
    if (to >= 0 && to < maps[shown].values.length * columns()) mark(to);
  });
  details.addEventListener("toggle", table);
  choices.append(...maps.map(({ picture, sample }, k) => {
    const button = node("button", { type: "button" }, node("img", { src: picture, alt: `sample ${sample}` }));
    button.addEventListener("click", () => show(k));
    return button;
  }));
  const scale = node("p", { class: "legend" }, node("span", { class: "ramp" }), ` ${signed(-largest)} to ${signed(largest)} percentage points`);
  box.append(node("div", { class: "cell-map" }, stage, node("div", {}, readout, scale, choices)), details);
  show(0);
}
document.querySelectorAll(".cells").forEach(cellMap);

// A button beside each command that copies it.
for (const command of document.querySelectorAll("code.command")) {
  const button = node("button", { type: "button", class: "copy" }, "copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command.textContent);
    } catch {
      getSelection().selectAllChildren(command); // where the browser forbids it, the reader copies the selection
      document.execCommand("copy");
    }
    button.textContent = "copied";
    setTimeout(() => (button.textContent = "copy"), 2000);
  });
  command.after(" ", button);
}
