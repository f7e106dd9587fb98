// The grid of units: search, filter, sort, pages; the card of a class; which part of the page is shown.
const SHOWN = 48; // cards a page
const TOPS = 6; // images a card
const $ = (id) => document.getElementById(id);
const form = $("filters");
const searchText = Array.from({ length: count }, (_, i) =>
  `${labelText(i)}\n${data.layers[units.layer[i]]}`.toLowerCase(),
);
let state = { view: "overview" };
let found = []; // indices of the units that fit, in order

function select(asked) {
  const words = (asked.find || "").trim().toLowerCase();
  const number = /^\d+$/.test(words) ? Number(words) : null;
  const layer = asked.layer ? data.layers.indexOf(asked.layer) : null;
  const wanted = asked.class ? (classNumber.has(asked.class) ? classNumber.get(asked.class) : -2) : null;
  const low = asked.min ? Number(asked.min) : -Infinity;
  const high = asked.max ? Number(asked.max) : Infinity;
  const bounded = asked.min || asked.max;
  const fits = [];
  for (let i = 0; i < count; i++) {
    if (layer !== null && units.layer[i] !== layer) continue;
    if (wanted !== null && units.label[i] !== wanted) continue;
    if (asked.labelled && !units.labelled[i]) continue;
    if (number !== null ? units.unit[i] !== number : words && !searchText[i].includes(words)) continue;
    if (asked.category && (units.label[i] < 0 || data.classes[units.label[i]].category !== asked.category)) continue;
    if (bounded && (units.iou[i] === null || units.iou[i] < low || units.iou[i] > high)) continue;
    fits.push(i);
  }
  return order(fits, asked);
}

function order(fits, asked) {
  const own = asked.class && classNumber.has(asked.class) && data.classes[classNumber.get(asked.class)].effects;
  const names = data.classes.map((one) => one.name);
  const descending = (values) => (i) => (values[i] === null ? null : -values[i]);
  const keys = {
    iou: descending(units.iou),
    content: descending(units.content_iou),
    q: (i) => units.q_value[i],
    unit: (i) => units.unit[i],
    class: (i) => (units.label[i] < 0 ? null : names[units.label[i]]),
    effect: (i) => (own || units.effect)[i], // most removed first
  };
  const key = keys[asked.sort] || keys.iou;
  const sign = asked.reverse ? -1 : 1;
  const keyed = fits.map((i) => [key(i), i]);
  keyed.sort(([a, i], [b, j]) => {
    if (!asked.sort && units.labelled[i] !== units.labelled[j]) return units.labelled[j] - units.labelled[i];
    if (a === null || b === null) return (a === null) - (b === null) || i - j; // what has no number comes last
    return a < b ? -sign : a > b ? sign : i - j;
  });
  return keyed.map(([, i]) => i);
}

function card(i, asked) {
  const label = labelOf(i);
  const title = `${data.noun} ${units.unit[i]}`;
  const head = el(
    "span",
    { class: "head" },
    el("b", { class: units.labelled[i] ? "" : "pale" }, label ? chip(label.colour) : "", labelText(i)),
    el("span", { class: "muted" }, data.layers.length > 1 ? `${data.layers[units.layer[i]]} · ` : "", title),
  );
  const facts = el("span", { class: "facts" });
  if (label) {
    facts.append(
      el("span", {}, "IoU ", el("b", {}, score(units.iou[i])), " ", el("small", {}, interval(units.iou_low[i], units.iou_high[i]))),
      el("span", { class: "muted" }, data.tested ? `place ${score(units.position_iou[i])}` : `chance ${score(units.chance_iou[i])}`),
    );
    if (data.tested) facts.append(el("span", { class: "muted" }, `q ${units.q_value[i] === null ? "–" : units.q_value[i].toPrecision(2)}`));
    if (asked.sort === "effect") {
      const own = asked.class && data.classes[classNumber.get(asked.class)].effects;
      facts.append(el("span", {}, `effect ${signed((own || units.effect)[i], 2)}`));
    }
  }
  const tops = units.top[i].slice(0, TOPS).map(([sample, outline]) => picture(sample, outline, `Sample ${sample}`));
  const link = address({ ...asked, view: "units", open: i });
  const made = el("a", { class: units.labelled[i] ? "card" : "card unlabelled", href: link }, head, facts, el("span", { class: "tops" }, tops));
  made.dataset.unit = i;
  return made;
}

function drawGrid() {
  found = select(state);
  const pages = Math.max(1, Math.ceil(found.length / SHOWN));
  const page = Math.min(Math.max(1, Number(state.page) || 1), pages);
  $("cards").replaceChildren(...found.slice((page - 1) * SHOWN, page * SHOWN).map((i) => card(i, state)));
  $("shown").textContent = `${found.length} of ${count} ${data.noun}s`;
  $("page").textContent = `page ${page} of ${pages}`;
  $("previous").disabled = page === 1;
  $("next").disabled = page === pages;
  $("previous").onclick = () => go({ page: page > 2 ? String(page - 1) : undefined });
  $("next").onclick = () => go({ page: String(page + 1) });
  drawClass();
}

function drawClass() {
  const one = data.classes[classNumber.get(state.class)];
  $("class").hidden = !one;
  if (!one) return;
  const own = units.label.reduce((sum, label) => sum + (data.classes[label] === one), 0);
  const parts = [
    el("h2", {}, chip(one.colour), one.name, " ", el("small", {}, one.category)),
    el("p", {}, `${percent(one.share, 1)} of all pixels, in ${percent(one.images)} of the images. ${one.units} of the ${own} ${data.noun}s that tell most of it are labelled.`),
    el("div", { class: "tops examples" }, one.examples.map(([sample, outline]) => picture(sample, outline, `Sample ${sample}, ${one.name} outlined`))),
  ];
  if (!one.examples.length) parts.push(el("p", { class: "muted" }, "It occurs in no image."));
  const about = [
    ...data.interventions.filter((done) => done.class === one.name),
    ...data.scans.filter((done) => done.class === one.name),
  ];
  if (about.length) {
    parts.push(el("h3", {}, "Interventions"), el("ul", {}, about.map((done) => el("li", {}, interventionLink(done)))));
  }
  $("class").replaceChildren(...parts);
}

function interventionLink(done) {
  const link = el("a", { href: address({ view: "intervention", name: done.name }) }, done.title);
  if (!done.relative) return link;
  const [change, low, high] = done.relative.map((value) => (value === null ? "–" : `${signed(100 * value, 0)} %`));
  return el("span", {}, link, `: ${change} `, el("small", {}, `[${low}, ${high}]`));
}

// Filters go into the address; each keystroke replaces the last one there.
function go(changes, replace = false) {
  state = { ...state, ...changes };
  const to = address(state);
  if (replace) history.replaceState(null, "", to);
  else if (location.hash === to) return;
  else {
    location.hash = to; // hashchange follows
    return;
  }
  show();
}

form.addEventListener("input", () => {
  const changes = { page: undefined };
  for (const field of form.elements) {
    if (field.name) changes[field.name] = (field.type === "checkbox" ? field.checked && "1" : field.value) || undefined;
  }
  go(changes, true);
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  go(Object.fromEntries([...KEYS, "open"].map((key) => [key, undefined])));
});

function fillForm() {
  for (const field of form.elements) {
    if (field.type === "checkbox") field.checked = Boolean(state[field.name]);
    else if (field.name && field !== document.activeElement) field.value = state[field.name] || "";
  }
}

function show() {
  for (const view of document.querySelectorAll(".view")) {
    view.hidden = state.view in NAMED ? view.dataset[state.view] !== state.name : view.id !== `view-${state.view}`;
  }
  if (![...document.querySelectorAll(".view")].some((view) => !view.hidden)) $("view-overview").hidden = false;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === `#${state.view}` || link.hash === `#${NAMED[state.view]}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (state.view === "units") {
    fillForm();
    drawGrid();
  }
  for (const place of document.querySelectorAll(".view:not([hidden]) [data-suspects]:empty")) drawSuspects(place);
  showUnit();
}

// Cards of suspect units, each with its score.
function drawSuspects(place) {
  for (const [unit, score] of JSON.parse(place.dataset.suspects)) {
    const made = card(byAddress.get(`${place.dataset.layer}/${unit}`), {});
    made.querySelector(".facts").prepend(el("span", {}, "score ", el("b", {}, score)));
    place.append(made);
  }
}

function follow() {
  const before = state;
  state = parseAddress(location.hash);
  show();
  if (before.view !== state.view || before.name !== state.name || before.page !== state.page) scrollTo(0, 0);
}

window.addEventListener("hashchange", follow);
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, dialog")) return;
  event.preventDefault();
  if (state.view !== "units") go({ view: "units" });
  setTimeout(() => form.elements.find.focus());
});
