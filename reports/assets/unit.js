// The panel of one unit: large images, its numbers and curves, and its neighbours by arrow keys.
const panel = $("unit");
const WIDTH = 460;
const HEIGHT = 180;
const MARGIN = { left: 58, right: 36 }; // of a chart, for its labels
const ORDINARY = 6; // samples beside the most-activating ones
const look = { region: true, heat: false, labels: false }; // stays the same from unit to unit

function showUnit() {
  const i = state.open;
  if (i === undefined) {
    if (panel.open) panel.close();
    return;
  }
  drawUnit(i);
  if (!panel.open) panel.showModal();
  $("unit-title").focus({ preventScroll: true });
  panel.scrollTop = 0;
}

function neighbours(i) {
  const list = matches.includes(i) ? matches : Array.from({ length: count }, (_, k) => k);
  const at = list.indexOf(i);
  return [list[at - 1], list[at + 1], at + 1, list.length];
}

function verdict(i) {
  const label = labelOf(i);
  if (!label) return units.state[i] === "ok" ? "It fits no class." : `It has no label, because it is ${units.state[i]}.`;
  if (!units.reaches[i]) return `Not labelled: its scores for ${label.name} do not reach the rule's limits.`;
  if (!data.tested) return `Labelled ${label.name}, since its scores reach the rule's limits. Labels of this run were not tested.`;
  const better = `Labelled ${label.name}: its regions fit the ${label.name} of their own image significantly better than that of other images`;
  if (units.tier[i] === "strong") return `${better}, and by far.`;
  if (units.tier[i] === "weak") return `${better}, but its IoU beyond position is small.`;
  return "Not labelled: its scores reach the rule's limits, but on these samples position and chance may explain them.";
}

function drawUnit(i) {
  const label = labelOf(i);
  const [before, after, position, of] = neighbours(i);
  const step = (to, text, key) => {
    const link = el("a", { class: "step", "aria-keyshortcuts": key }, text);
    if (to === undefined) link.setAttribute("aria-disabled", "true");
    else {
      link.href = address({ ...state, open: to });
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return; // opens in another tab or window
        event.preventDefault();
        walk(to);
      });
    }
    return link;
  };
  const close = el("a", { class: "step close", href: address({ ...state, open: undefined }), "aria-keyshortcuts": "Escape" }, "close ✕");
  close.addEventListener("click", (event) => {
    event.preventDefault();
    closeUnit();
  });
  const bar = el(
    "div",
    { class: "toolbar" },
    step(before, "← previous", "ArrowLeft"),
    el("span", { class: "muted" }, `${position} of ${of}`),
    step(after, "next →", "ArrowRight"),
    close,
  );
  const title = el(
    "h2",
    { id: "unit-title", class: "title", tabindex: "-1" },
    `${data.noun} ${units.unit[i]} `,
    el("span", { class: units.labelled[i] ? "" : "pale" }, label ? chip(label.colour) : "", labelText(i)),
    el("small", {}, ` ${data.layers[units.layer[i]]} `),
    tierChip(i),
  );
  const parts = [bar, title, el("p", {}, verdict(i))];
  if (label) parts.push(headline(i));
  parts.push(topImages(i));
  const charts = el("div", { class: "columns" });
  if (label) charts.append(rivals(i));
  charts.append(effectsChart(i) ?? "");
  if (label) charts.append(curve(i));
  charts.append(histogram(i));
  if (units.fires[i]) charts.append(fires(i));
  parts.push(charts, beside(i), numbers(i));
  panel.replaceChildren(...parts);
  if (data.maps) ordinaryImages(i);
}

// To another unit: in place of the address before, so that one step back leaves the panel however many were looked at.
function walk(to) {
  go({ open: to, page: pageOf(to) }, true);
}

function headline(i) {
  const figure = (text, small, ...name) => el("div", {}, el("b", {}, text, " ", el("small", {}, small)), ...name);
  const figures = [figure(score(units.iou[i]), interval(units.iou_low[i], units.iou_high[i]), term("IoU"), data.tested ? ", 95 % interval" : "", splitBar(i))];
  if (data.tested) {
    figures.push(
      figure(score(units.position_iou[i]), "", term("position IoU", "IoU by position alone")),
      figure(signed(units.content_iou[i]), "", term("content IoU", "IoU beyond position")),
      figure(units.q_value[i] === null ? "–" : units.q_value[i].toPrecision(2), "", term("q-value"), `, from p = ${units.p_value[i]}`),
    );
  } else figures.push(figure(score(units.chance_iou[i]), "", term("chance IoU")));
  const effect = effectOn(i, units.label[i]);
  if (effect) figures.push(figure(effectText(effect), effectInterval(effect), term("effect", `effect on ${labelOf(i).name}`), `, points, ${effect.measured ? "measured" : "estimated"}`));
  return el("div", { class: "figures" }, figures);
}

function topImages(i) {
  const heats = units.map[i] ? unitHeats(i) : null;
  const tops = units.top[i].map(([sample, outline], order) => {
    const link = samplePicture(sample, outline, `Sample ${sample}, the ${data.noun}'s region outlined`, i);
    heats?.then((canvases) => canvases[order] && link.querySelector(".labels").after(canvases[order]));
    return el("figure", {}, link, el("figcaption", {}, sample));
  });
  const pictures = el("div", { class: "looks" }, el("div", { class: "tops large" }, tops), el("div", { id: "ordinary" }));
  const toggle = (key, text, shortcut) => {
    const box = el("input", { type: "checkbox", name: key, "aria-keyshortcuts": shortcut });
    box.checked = look[key];
    const change = () => {
      look[key] = box.checked;
      pictures.classList.toggle(`show-${key}`, box.checked);
    };
    box.addEventListener("change", change);
    change();
    return el("label", {}, box, ` ${text} `, el("kbd", {}, shortcut));
  };
  const switches = el("p", { class: "switches" }, toggle("region", "outline", "o"), data.maps ? toggle("heat", "heat map", "h") : null, toggle("labels", "segmentation", "s"));
  return el("section", {}, el("h3", {}, "Most-activating samples"), switches, pictures);
}

// The heat maps of a unit's most-activating samples; there may be fewer than samples.
async function unitHeats(i) {
  const [, height, width] = data.maps.top_shapes[units.layer[i]];
  const bytes = await inflated(units.map[i]);
  const maps = Array.from({ length: bytes.length / (height * width) }, (_, k) => bytes.subarray(k * height * width, (k + 1) * height * width));
  return maps.map((values) => heatCanvas({ values, height, width }));
}

// Samples that were not chosen for the unit: of the run's first, from its strongest to its weakest.
async function ordinaryImages(i) {
  const all = await Promise.all(data.maps.first.map(async (_, sample) => [greatest(mapOf(await sampleMaps(sample), i).values), sample]));
  if (state.open !== i || !$("ordinary")) return; // another unit is shown by now
  all.sort(([a, j], [b, k]) => b - a || j - k);
  const shown = Math.min(ORDINARY, all.length);
  const ranks = Array.from({ length: shown }, (_, k) => Math.round((k * (all.length - 1)) / Math.max(1, shown - 1)));
  const figures = await Promise.all(ranks.map(async (at) => {
    const sample = all[at][1];
    const map = mapOf(await sampleMaps(sample), i);
    const link = samplePicture(sample, "", `Sample ${sample}`, i);
    link.firstChild.append(heatCanvas(map), regionOf(map, units.step[i] ?? 256));
    return el("figure", {}, link, el("figcaption", {}, `${sample} · ${at + 1}. of ${all.length}`));
  }));
  const note = `Not chosen for this ${data.noun}: of the run's first ${all.length} samples, ordered by its greatest activation in them, from the strongest to the weakest.`;
  $("ordinary")?.replaceChildren(el("h3", {}, "Ordinary samples"), el("p", { class: "muted" }, note), el("div", { class: "tops large" }, figures));
}

// What leads on from a unit: similar ones, the command that ablates it, and what was measured with it.
function beside(i) {
  const links = units.similar[i].map(([other, r]) => {
    const label = labelOf(other);
    const layer = data.layers.length > 1 ? `${data.layers[units.layer[other]]} · ` : "";
    const link = el("a", { class: "unit", href: address({ view: "units", open: other }) }, label ? chip(label.colour) : "", `${layer}${units.unit[other]} `, el("span", { class: units.labelled[other] ? "" : "pale" }, labelText(other)), el("span", { class: "muted" }, ` r ${score(r, 2)}`));
    return link;
  });
  const parts = [
    el("h3", {}, `Similar ${data.noun}s`),
    el("p", { class: "muted" }, "By the correlation r of the activations on the first samples, in 4×4 cells."),
    el("p", {}, links.length ? links : "none"),
  ];
  parts.push(el("h3", {}, "Ablate it"), copyable(`dissect ablate ${quoted(data.folder)} --units ${quoted(`${data.layers[units.layer[i]]}:${units.unit[i]}`)}`));
  const entries = interventionsOf(i);
  if (entries.length) parts.push(el("h3", {}, "Interventions"), el("ul", {}, entries.map((entry) => el("li", {}, entry))));
  return el("section", {}, parts);
}

// Text as one word of a shell.
function quoted(text) {
  return /^[\w./:@%+=,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function copyable(command) {
  const code = el("code", {}, command);
  const button = el("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code); // copied by hand where the browser does not let a page copy
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Press Ctrl+C";
    }
  });
  return el("p", { class: "copyable" }, code, " ", button);
}

function chart(title, note, ...children) {
  return el("section", { class: "chart-box" }, el("h3", {}, title), ...children, el("p", { class: "muted" }, note));
}

function svg(alt, ...children) {
  const box = `-${MARGIN.left} -10 ${WIDTH + MARGIN.left + MARGIN.right} ${HEIGHT + 56}`;
  return el("svg:svg", { class: "curve", viewBox: box, role: "img", "aria-label": alt }, ...children);
}

// Below a drawing, the values under the pointer or finger; `words` takes a position from 0 to 1 across it.
function withReadout(drawing, words) {
  const output = el("p", { class: "readout-line" }, "Point at the chart to read values.");
  const read = (event) => {
    const area = drawing.getBoundingClientRect();
    const across = ((event.clientX - area.left) / area.width) * (WIDTH + MARGIN.left + MARGIN.right) - MARGIN.left;
    output.textContent = words(Math.min(1, Math.max(0, across / WIDTH)));
  };
  drawing.addEventListener("pointermove", read);
  drawing.addEventListener("pointerdown", read);
  return [drawing, output];
}

function text(x, y, words, anchor = "middle") {
  return el("svg:text", { x, y, "text-anchor": anchor }, words);
}

function line(x1, y1, x2, y2, kind) {
  return el("svg:line", { x1, y1, x2, y2, class: kind });
}

function roundUp(value) {
  return [0.04, 0.1, 0.2, 0.4, 0.6, 0.8].find((top) => value <= top) || 1;
}

// The best classes: bar for the IoU, line for its interval, ticks for chance and place.
function rivals(i) {
  const above = ([, iou, , , chance, position]) => iou - (position ?? chance);
  const rows = units.rivals[i].filter(([, iou]) => iou !== null).sort((a, b) => above(b) - above(a));
  const top = roundUp(Math.max(...rows.flatMap(([, iou, , high, chance, position]) => [iou, high, chance, position])));
  const at = (value) => `${Math.max(0, Math.min(100, (100 * value) / top)).toFixed(2)}%`;
  const list = rows.map(([index, iou, low, high, chance, position]) => {
    const track = el("span", { class: "track" });
    const mark = (kind, left, width) => {
      const bar = el("i", { class: kind });
      bar.style.left = at(left);
      if (width !== undefined) bar.style.width = at(width);
      track.append(bar);
    };
    mark("value", 0, iou);
    if (low !== null) mark("span", low, Math.max(0, high - low));
    mark("chance", chance);
    if (position !== null) mark("place", position);
    const description = `IoU ${score(iou)} ${interval(low, high)}, chance ${score(chance)}${position === null ? "" : `, position ${score(position)}`}`;
    const entry = data.classes[index];
    return el("li", { title: description }, el("span", { class: index === units.label[i] ? "name own" : "name" }, chip(entry.colour), entry.name), track, el("b", {}, score(iou)), el("span", { class: "hidden" }, description));
  });
  const keys = el("p", { class: "legend" }, el("span", {}, el("i", { class: "key chance" }), "chance"));
  if (data.tested) keys.append(el("span", {}, el("i", { class: "key place" }), "position"), el("span", {}, el("i", { class: "key span" }), "95 % interval"));
  return chart("Best classes", `IoU with its best classes by the rule ${data.rule}, each at its own threshold, in the order of IoU above ${BASE}. The bars range from 0 to ${top}.`, el("ol", { class: "bars-list rivals" }, list), keys);
}

function curve(i) {
  const [iou, chance] = units.curve[i].map((values) => values.map((value) => (value < 0 ? null : value / 1e4)));
  const [most, least] = [data.shares[0], data.shares[data.shares.length - 1]];
  const across = (share) => (Math.log(most / share) / Math.log(most / least)) * WIDTH;
  const top = roundUp(Math.max(...iou, ...chance, units.iou_high[i] || 0));
  const up = (value) => HEIGHT * (1 - value / top);
  const points = (values) =>
    values.map((value, k) => (value === null ? "" : `${across(data.shares[k]).toFixed(1)},${up(value).toFixed(1)}`)).join(" ");
  const chosen = across(Math.min(most, Math.max(least, units.quantile[i] || most)));
  const label = labelOf(i).name;
  const drawn = [0, 0.25, 0.5, 0.75, 1].flatMap((fraction) => [
    line(0, HEIGHT * (1 - fraction), WIDTH, HEIGHT * (1 - fraction), "grid"),
    text(-8, HEIGHT * (1 - fraction) + 4, (top * fraction).toFixed(2), "end"),
  ]);
  for (const share of [0.5, 0.1, 0.01, 0.001]) drawn.push(text(across(share), HEIGHT + 18, `${100 * share} %`));
  drawn.push(
    text(WIDTH / 2, HEIGHT + 38, "pixels above the threshold"),
    el("svg:polyline", { class: "chance", points: points(chance) }),
    el("svg:polyline", { class: "iou", points: points(iou) }),
    line(chosen, 0, chosen, HEIGHT, "chosen"),
    el("svg:circle", { class: "iou", cx: chosen, cy: up(units.iou[i]), r: 4.5 }),
  );
  if (data.tested) drawn.push(el("svg:circle", { class: "place", cx: chosen, cy: up(units.position_iou[i]), r: 5 }));
  const keys = el("p", { class: "legend" }, el("span", {}, el("i", { class: "key iou" }), `IoU with ${label}`), el("span", {}, el("i", { class: "key dotted" }), "chance"));
  if (data.tested) keys.append(el("span", {}, el("i", { class: "key ring" }), "position"));
  return chart("At every threshold", "Vertical dashed line: the chosen threshold.", ...withReadout(svg(`IoU with ${label} and chance IoU by the share of pixels above the threshold`, ...drawn), (at) => {
    const off = data.shares.map((share) => Math.abs(across(share) - at * WIDTH));
    const k = off.indexOf(Math.min(...off));
    return `${(100 * data.shares[k]).toPrecision(2)} % of the pixels above the threshold: IoU ${score(iou[k])}, chance ${score(chance[k])}`;
  }), keys);
}

function histogram(i) {
  const counts = units.histogram[i];
  const [low, high] = units.span[i];
  const top = Math.log1p(Math.max(...counts));
  const wide = WIDTH / counts.length;
  const drawn = counts.map((value, k) => {
    const tall = (HEIGHT * Math.log1p(value)) / top;
    return el("svg:rect", { x: (k * wide).toFixed(1), y: (HEIGHT - tall).toFixed(1), width: (wide - 1).toFixed(1), height: tall.toFixed(1) });
  });
  for (let power = 1; power < Math.exp(top); power *= 10) {
    const y = HEIGHT * (1 - Math.log1p(power) / top);
    drawn.unshift(line(0, y, WIDTH, y, "grid"), text(-8, y + 4, power >= 1e4 ? `1e${Math.round(Math.log10(power))}` : power, "end"));
  }
  for (const fraction of [0, 0.5, 1]) drawn.push(text(WIDTH * fraction, HEIGHT + 18, (low + (high - low) * fraction).toPrecision(3).replace("-", "−")));
  drawn.push(text(WIDTH / 2, HEIGHT + 38, "activation"));
  if (high > low) {
    const x = ((units.threshold[i] - low) / (high - low)) * WIDTH;
    drawn.push(line(x, 0, x, HEIGHT, "chosen"));
  }
  return chart("Activations", `Number of pixels of the map by activation, on a logarithmic axis. Dashed line: the threshold, ${score(units.threshold[i])}.`, ...withReadout(svg(`Histogram of activations from ${score(low)} to ${score(high)}`, ...drawn), (at) => {
    const k = Math.min(counts.length - 1, Math.floor(at * counts.length));
    const edge = (n) => (low + ((high - low) * n) / counts.length).toPrecision(3).replace("-", "−");
    return `activation ${edge(k)} to ${edge(k + 1)}: ${counts[k].toLocaleString("en")} pixels`;
  }));
}

// A map of the positions in the image at which the unit's region lies, over all scored samples.
function fires(i) {
  const bytes = Uint8Array.from(atob(units.fires[i]), (letter) => letter.charCodeAt(0));
  const side = Math.round(Math.sqrt(bytes.length));
  const canvas = el("canvas", { width: side, height: side, role: "img", "aria-label": `Where the ${data.noun} is above its threshold, at most in ${percent(units.fires_max[i])} of the samples` });
  const map = canvas.getContext("2d").createImageData(side, side);
  bytes.forEach((value, k) => map.data.set([215, 130, 30, value], 4 * k));
  canvas.getContext("2d").putImageData(map, 0, 0);
  const stage = el("span", { class: "stage mean" }, el("img", { src: data.mean, alt: "Mean of the run's first images" }), canvas);
  stage.style.aspectRatio = `${data.image[1]} / ${data.image[0]}`;
  const scale = el("p", { class: "scale" }, "0 %", el("i", {}), percent(units.fires_max[i]));
  return chart("Where it is active", "Share of the scored samples in which its region covers a position, over the mean of the run's first images.", stage, scale);
}

function numbers(i) {
  const rows = [];
  const row = (name, value, meaning) => rows.push(el("tr", {}, el("th", { scope: "row" }, data.terms[name] ? term(name) : name), el("td", { class: "number" }, value), el("td", { class: "muted" }, meaning)));
  const label = labelOf(i);
  if (label) {
    const second = data.classes[units.runner_up[i]];
    row("chance IoU", score(units.chance_iou[i]), "pq / (p + q − pq): an unrelated region of the same size");
    row("attainable IoU", score(units.attainable_iou[i]), "min(p, q) / max(p, q): the largest IoU that a region of this size could reach");
    row("IQ ratio", score(units.iqr[i]), "information quality ratio: mutual information of region and class, as a share of their joint entropy");
    row("average precision", score(units.average_precision[i]), `of the activation as a detector of ${label.name}, over all thresholds`);
    row("excess IoU", score(units.excess_iou[i]), "IoU minus chance, at the threshold where it is largest on the even samples");
    row("split-half IoU", score(units.split_half_iou[i]), "IoU with the halves exchanged: class and threshold chosen on the odd samples, scored on the even ones");
    row("runner-up", score(units.runner_up_iou[i]), second ? `IoU of ${second.name}, the second-best class` : "no other class");
    if (data.tested) row("label set", units.label_set[i] || "–", "those of the eight best classes that are best in at least 5 % of bootstraps of the even samples");
  }
  row("threshold", score(units.threshold[i]), `${percent(units.quantile[i], 1)} of the pixels lie above it`);
  row("peak", score(units.peak[i]), "largest activation");
  return el("section", {}, el("h3", {}, "Numbers"), el("table", { class: "plain wrap" }, el("tbody", {}, rows)));
}

function interventionsOf(i) {
  const layer = data.layers[units.layer[i]];
  const links = data.interventions.filter((done) => done.layer === layer && done.units.includes(units.unit[i])).map(interventionLink);
  const scanned = data.classes.filter((entry) => entry.effects && entry.effects.value[i] !== null);
  const effects = scanned.map((entry) => `Ablated by itself: ${signed(entry.effects.value[i], 3)} percentage points of ${entry.name}`);
  return [...links, ...effects];
}

// Back to the list, on the page and at the card of the unit.
function closeUnit() {
  const was = state.open;
  go({ open: undefined, page: pageOf(was) });
  setTimeout(() => {
    const own = document.querySelector(`#cards [data-unit="${was}"]`);
    own?.focus();
    own?.scrollIntoView({ block: "nearest" });
  });
}

panel.addEventListener("cancel", (event) => {
  event.preventDefault();
  closeUnit();
});
panel.addEventListener("click", (event) => {
  if (event.target === panel) closeUnit(); // beside the panel
});
panel.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.matches("input[type=range]")) return;
  const to = { ArrowLeft: 0, ArrowRight: 1 }[event.key];
  if (to !== undefined) {
    const next = neighbours(state.open)[to];
    if (next !== undefined) walk(next);
    event.preventDefault();
  }
  const box = { o: "region", h: "heat", s: "labels" }[event.key];
  if (box) panel.querySelector(`input[name=${box}]`)?.click();
});
