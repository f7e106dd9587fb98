// The grid of units: search, filter, sort, pages; the card of a class; which view of the page is shown.
const SHOWN = 48; // cards on a page
const TOPS = 6; // images on a card
const $ = (id) => document.getElementById(id);
const form = $("filters");
const searchText = Array.from({ length: count }, (_, i) =>
  `${labelText(i)}\n${data.layers[units.layer[i]]}`.toLowerCase(),
);
const TIERS = ["strong", "weak", "position only", "untested", ""]; // in this order
const rank = units.tier.map((tier) => TIERS.indexOf(tier));
let state = { view: "overview" };
let matches = []; // indices of the units that pass the filters, in order

// The units that pass the filters, sorted.
function select(filters) {
  const words = (filters.find || "").trim().toLowerCase();
  const number = /^\d+$/.test(words) ? Number(words) : null;
  const layer = filters.layer ? data.layers.indexOf(filters.layer) : null;
  const wanted = filters.class ? (classNumber.has(filters.class) ? classNumber.get(filters.class) : -2) : null;
  const low = filters.min ? Number(filters.min) : -Infinity;
  const high = filters.max ? Number(filters.max) : Infinity;
  const bounded = filters.min || filters.max;
  const least = filters.effect ? Number(filters.effect) : 0;
  const passing = [];
  for (let i = 0; i < count; i++) {
    if (layer !== null && units.layer[i] !== layer) continue;
    if (wanted !== null && units.label[i] !== wanted) continue;
    if (filters.labelled && !units.labelled[i]) continue;
    if (number !== null ? units.unit[i] !== number : words && !searchText[i].includes(words)) continue;
    if (filters.category && (units.label[i] < 0 || data.classes[units.label[i]].category !== filters.category)) continue;
    if (bounded && (units.iou[i] === null || units.iou[i] < low || units.iou[i] > high)) continue;
    if (least && !(Math.abs(shownEffect(i, filters)?.value) >= least)) continue;
    passing.push(i);
  }
  return sorted(passing, filters);
}

// The effect on the class that the filters name, or else on the unit's own class.
function shownEffect(i, filters) {
  return effectOn(i, filters.on ? classNumber.get(filters.on) : units.label[i]);
}

function sorted(indices, filters) {
  const names = data.classes.map((entry) => entry.name);
  const descending = (values) => (i) => (values[i] === null ? null : -values[i]);
  const keys = {
    "": descending(data.tested ? units.content_iou : units.iou),
    iou: descending(units.iou),
    content: descending(units.content_iou),
    q: (i) => units.q_value[i],
    unit: (i) => units.unit[i],
    class: (i) => (units.label[i] < 0 ? null : names[units.label[i]]),
    effect: (i) => shownEffect(i, filters)?.value ?? null, // most removed first
  };
  const key = keys[filters.sort] || keys[""];
  const sign = filters.reverse ? -1 : 1;
  const keyed = indices.map((i) => [key(i), i]);
  keyed.sort(([a, i], [b, j]) => {
    if (!filters.sort && rank[i] !== rank[j]) return sign * (rank[i] - rank[j]);
    if (a === null || b === null) return (a === null) - (b === null) || i - j; // missing numbers come last
    return a < b ? -sign : a > b ? sign : i - j;
  });
  return keyed.map(([, i]) => i);
}

function card(i, filters) {
  const label = labelOf(i);
  const head = el(
    "span",
    { class: "head" },
    el("b", { class: units.labelled[i] ? "" : "pale" }, label ? chip(label.colour) : "", labelText(i)),
    el("span", { class: "muted" }, data.layers.length > 1 ? `${data.layers[units.layer[i]]} · ` : "", `${data.noun} ${units.unit[i]}`),
  );
  const facts = el("span", { class: "facts" });
  if (label) facts.append(splitBar(i), tierChip(i));
  const effect = filters.sort === "effect" || filters.on || filters.effect ? shownEffect(i, filters) : null;
  if (effect) facts.append(el("span", { title: effectWords(effect) }, `${filters.on || "effect"} ${effectText(effect)}`));
  const link = el("a", { class: "open", href: address({ ...filters, view: "units", missing: undefined, open: i }) }, head, facts);
  link.dataset.unit = i;
  const tops = units.top[i].slice(0, TOPS).map(([sample, outline]) => samplePicture(sample, outline, `Sample ${sample}`, i, { tabindex: "-1" }));
  return el("article", { class: units.labelled[i] ? "card" : "card unlabelled" }, link, el("span", { class: "tops" }, tops));
}

function drawGrid() {
  matches = select(state);
  if (state.open !== undefined && !state.page) state.page = pageOf(state.open);
  const pages = Math.max(1, Math.ceil(matches.length / SHOWN));
  const page = Math.min(Math.max(1, Number(state.page) || 1), pages);
  $("cards").replaceChildren(...matches.slice((page - 1) * SHOWN, page * SHOWN).map((i) => card(i, state)));
  $("shown").textContent = `${matches.length} of ${count} ${data.noun}s`;
  $("page").textContent = `page ${page} of ${pages}`;
  $("previous").disabled = page === 1;
  $("next").disabled = page === pages;
  $("previous").onclick = () => go({ page: page > 2 ? String(page - 1) : undefined });
  $("next").onclick = () => go({ page: String(page + 1) });
  drawClass();
}

// The page of the list on which a unit is, as the address has it; undefined for the first.
function pageOf(i) {
  const at = matches.indexOf(i);
  return at < SHOWN ? undefined : String(1 + Math.floor(at / SHOWN));
}

function drawClass() {
  const entry = data.classes[classNumber.get(state.class)];
  $("class").hidden = !entry;
  if (!entry) return;
  const candidates = units.label.reduce((sum, label) => sum + (data.classes[label] === entry), 0);
  const parts = [
    el("h2", {}, chip(entry.colour), entry.name, " ", el("small", {}, entry.category)),
    el("p", {}, `It covers ${percent(entry.share, 1)} of all pixels, and occurs in ${percent(entry.images)} of the images. It is the best class of ${candidates} ${data.noun}s; ${entry.units} of them are labelled with it.`),
    el("div", { class: "tops examples" }, entry.examples.map(([sample, outline]) => samplePicture(sample, outline, `Sample ${sample}, ${entry.name} outlined`))),
  ];
  if (!entry.examples.length) parts.push(el("p", { class: "muted" }, "It does not occur in any image."));
  const interventions = [
    ...data.interventions.filter((done) => done.class === entry.name),
    ...data.scans.filter((done) => done.class === entry.name),
  ];
  if (interventions.length) {
    parts.push(el("h3", {}, "Interventions"), el("ul", {}, interventions.map((done) => el("li", {}, interventionLink(done)))));
  }
  parts.push(...unitsOfClass(classNumber.get(state.class)));
  $("class").replaceChildren(...parts);
}

function interventionLink(done) {
  const link = el("a", { href: address({ view: "intervention", name: done.name }) }, done.title);
  if (!done.relative) return link;
  const [change, low, high] = done.relative.map((value) => (value === null ? "–" : `${signed(100 * value, 0)} %`));
  return el("span", {}, link, `: ${change} `, el("small", {}, `[${low}, ${high}]`));
}

// Filters are kept in the address; each keystroke replaces the address before it in the history.
function go(changes, replace = false) {
  state = { ...state, missing: undefined, ...changes };
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
  $("missing").hidden = !state.missing;
  $("missing").textContent = state.missing || "";
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.hash === `#${state.view}` || link.hash === `#${NAMED[state.view]}`;
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (state.view === "units") {
    fillForm();
    drawGrid();
  }
  if (state.view === "sample") drawSample(state.name, state.region);
  document.title = [heading(), data.title, "ganatomy"].filter(Boolean).join(" · ");
  for (const box of document.querySelectorAll(".view:not([hidden]) [data-suspects]:empty")) drawSuspects(box);
  showUnit();
}

// What the shown view is called in tabs, bookmarks and the history.
function heading() {
  if (state.view === "sample") return `sample ${state.name}`;
  if (state.view in NAMED) return `${state.view} ${state.name}`;
  if (state.view !== "units") return state.view === "overview" ? "" : state.view;
  if (state.open !== undefined) return `${data.noun} ${units.unit[state.open]}: ${labelText(state.open)}`;
  return state.class || `${data.noun}s`;
}

// Cards of suspect units, each with its score.
function drawSuspects(box) {
  for (const [unit, score] of JSON.parse(box.dataset.suspects)) {
    const suspect = card(byAddress.get(`${box.dataset.layer}/${unit}`), {});
    suspect.querySelector(".facts").prepend(el("span", {}, "score ", el("b", {}, score)));
    box.append(suspect);
  }
}

function follow() {
  const before = state;
  state = parseAddress(location.hash);
  show();
  if (state.view !== "units" || before.view !== "units" || before.name !== state.name || before.page !== state.page) scrollTo(0, 0);
}

window.addEventListener("hashchange", follow);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  if (state.view !== "units") go({ view: "units", open: undefined });
  setTimeout(() => (document.querySelector("#cards a") || form.elements.find).focus());
});
form.querySelector(".more").addEventListener("click", (event) => {
  const open = form.classList.toggle("open"); // on a phone the filters are folded away
  event.target.setAttribute("aria-expanded", open);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, select, dialog")) return;
  event.preventDefault();
  if (state.view !== "units") go({ view: "units" });
  setTimeout(() => form.elements.find.focus());
});
