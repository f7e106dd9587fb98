"use strict";
// Scans: scatters of IoU and effect, and of estimate and effect, whose points lead to the units, and a table of as many
// classes as one wants.
const FEW_ROWS = 200; // of a table, at first
const FEW_CLASSES = 8; // columns, at first

function unitAddress(scan, k) {
  return `#${encodeURIComponent(scan.layer)}/unit=${scan.unit[k]}`;
}

// across, up: the coordinates of the points by unit, null where a unit has none. at: gets their positions.
function drawScatter(field, scan, at, across, up, name) {
  const [width, height] = [Math.max(260, field.clientWidth), Math.min(420, Math.max(260, 0.5 * field.clientWidth))];
  const [left, right, top, bottom] = [54, width - 14, 14, height - 40];
  const known = [...scan.unit.keys()].filter((k) => across[k] !== null && up[k] !== null);
  const ends = (values) => {
    const [low, high] = [Math.min(0, ...known.map((k) => values[k])), Math.max(0, ...known.map((k) => values[k]))];
    const room = 0.06 * (high - low || 1);
    return [low < 0 ? low - room : low, high + room];
  };
  const [[first, last], [low, high]] = [ends(across), ends(up)];
  const x = (value) => left + ((value - first) / (last - first)) * (right - left);
  const y = (value) => top + ((high - value) / (high - low)) * (bottom - top);
  for (const k of known) at[k] = [x(across[k]), y(up[k])];
  const text = (to, down, anchor, words) => node("svg:text", { x: to.toFixed(1), y: down.toFixed(1), "text-anchor": anchor, class: "tick" }, words);
  const step = (span) => {
    const power = 10 ** Math.floor(Math.log10(span / 6));
    return power * [1, 2, 5, 10].find((times) => times * power >= span / 6);
  };
  const ticks = (from, to) => {
    const all = [];
    for (let k = Math.ceil(from / step(to - from)); k * step(to - from) <= to + 1e-9; k++) all.push(Number((k * step(to - from)).toPrecision(6)));
    return all;
  };
  field.replaceChildren(
    node(
      "svg:svg",
      { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" },
      ...ticks(low, high).flatMap((value) => [
        node("svg:path", { class: value === 0 ? "axis-line" : "grid", d: `M${left},${y(value)}H${right}` }),
        text(left - 6, y(value) + 4, "end", String(value).replace("-", "−")),
      ]),
      ...ticks(first, last).map((value) => text(x(value), bottom + 16, "middle", String(value).replace("-", "−"))),
      text((left + right) / 2, height - 6, "middle", name),
      ...known.map((k) => node("svg:circle", { class: `point ${scan.changed[k] ? "fittest" : scan.verified[k] ? "" : "estimated"}`, cx: at[k][0].toFixed(1), cy: at[k][1].toFixed(1), r: scan.verified[k] ? 4.5 : 3 })),
      node("svg:circle", { class: "ring", r: 9 }),
    ),
  );
}

function scanView(box) {
  const scan = JSON.parse(box.querySelector("script").textContent);
  const [readout, table] = [box.querySelector(".scan-readout"), box.querySelector("table.scan")];
  const all = box.querySelector(".more button");
  const classes = new Set(scan.classes.slice(0, FEW_CLASSES));
  const signed = (value, digits) => (value === null ? "–" : Number(value.toFixed(digits)) === 0 ? (0).toFixed(digits) : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`);
  const effect = scan.unit.map((_, k) => (scan.verified[k] ? scan.change_pp[k] : scan.estimate[k]));
  const exact = scan.unit.map((_, k) => (scan.verified[k] ? scan.change_pp[k] : null));
  const scatters = [...box.querySelectorAll(".field")].map((field) => {
    const draws = field.dataset.across === "iou" ? [scan.iou, effect, `IoU with ${scan.class}`] : [scan.estimate, exact, "estimate, percentage points"];
    return { field, draws, at: scan.unit.map(() => null) };
  });
  let marked = 0; // the strongest: units are in the order of their effects
  let order = { values: scan.unit.map((_, k) => k), name: "change", sign: 1 };
  let whole = false;
  const estimated = scan.estimate.some((value) => value !== null);

  const mark = (k) => {
    marked = k;
    const label = `unit ${scan.unit[k]}`;
    const estimated = scan.estimate[k] === null ? "" : `; estimate ${signed(scan.estimate[k], 2)} [${signed(scan.estimate_low[k], 2)}, ${signed(scan.estimate_high[k], 2)}]`;
    const exactly = scan.verified[k] ? `${signed(scan.change_pp[k], 2)} percentage points [${signed(scan.low[k], 2)}, ${signed(scan.high[k], 2)}]` : "was not ablated";
    const words = `${scan.label[k] || "no label"}; IoU ${scan.iou[k] === null ? "–" : scan.iou[k].toFixed(3)}; ${scan.class} ${exactly}${estimated}`;
    readout.replaceChildren(node("a", { href: unitAddress(scan, k) }, label), ` ${words}`);
    for (const { field, at } of scatters) {
      field.setAttribute("aria-valuenow", k + 1);
      field.setAttribute("aria-valuetext", `${label}, ${words}`);
      const ring = field.querySelector(".ring");
      ring?.toggleAttribute("hidden", !at[k]);
      if (ring && at[k]) for (const [name, value] of [["cx", at[k][0]], ["cy", at[k][1]]]) ring.setAttribute(name, value);
    }
  };
  const open = () => (location.hash = unitAddress(scan, marked));
  for (const { field, at } of scatters) {
    const nearest = (event) => {
      const frame = field.getBoundingClientRect();
      const away = (k) => (at[k] ? Math.hypot(at[k][0] - (event.clientX - frame.left), at[k][1] - (event.clientY - frame.top)) : Infinity);
      return scan.unit.reduce((best, _, k) => (away(k) < away(best) ? k : best), 0);
    };
    field.addEventListener("pointermove", (event) => event.pointerType === "mouse" && mark(nearest(event)));
    field.addEventListener("click", (event) => {
      const [before, now] = [marked, nearest(event)];
      mark(now);
      if (event.pointerType === "mouse" || before === now) open(); // a finger first chooses, then opens
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") return open();
      const points = [...scan.unit.keys()].filter((k) => at[k]); // strongest first
      const from = points.indexOf(marked);
      const to = { ArrowLeft: from - 1, ArrowUp: from - 1, ArrowRight: from + 1, ArrowDown: from + 1, Home: 0, End: points.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      mark(points[Math.min(points.length - 1, Math.max(0, to))]);
    });
  }

  const cell = (kind, ...content) => node("td", { class: kind }, ...content);
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const row = (k, chosen) => {
    const effects = chosen.map((c) => {
      const value = scan.effects[c][k];
      const shaded = cell(`number ${value < 0 ? "less" : "more"}`, signed(value, 2));
      shaded.style.setProperty("--shade", `${(100 * Math.min(1, Math.abs(value) / scan.largest) ** 0.5).toFixed(0)}%`);
      return shaded;
    });
    return node("tr", {},
      node("th", { scope: "row", class: "number" }, node("a", { href: unitAddress(scan, k) }, String(scan.unit[k]))),
      cell(scan.labelled[k] ? "" : "pale", scan.label[k] || "–"),
      cell("number", number(scan.iou[k], 3)), cell("number", number(scan.iou_rank[k], 0)), cell("number", number(scan.causal_rank[k], 0)),
      cell("number", node("b", {}, signed(scan.change_pp[k], 2)), scan.changed[k] ? "*" : ""),
      cell("muted", scan.verified[k] ? `[${signed(scan.low[k], 2)}, ${signed(scan.high[k], 2)}]` : "not ablated"),
      ...(estimated ? [cell("number", signed(scan.estimate[k], 2))] : []), ...effects);
  };
  const draw = () => {
    const chosen = [...scan.classes.keys()].filter((c) => classes.has(scan.classes[c]));
    const headings = [
      ["unit", scan.unit], ["label", scan.label.map((name) => name || null)], ["IoU", scan.iou], ["IoU rank", scan.iou_rank], ["causal rank", scan.causal_rank],
      ["change", scan.unit.map((_, k) => k)], ["95 % interval", null], ...(estimated ? [["estimate", scan.estimate]] : []), ...chosen.map((c) => [scan.classes[c], scan.effects[c]]),
    ];
    const head = headings.map(([name, values], column) => {
      if (!values) return node("th", {}, name);
      const sorted = name === order.name ? (order.sign > 0 ? "ascending" : "descending") : "none";
      const button = node("button", { type: "button" }, name);
      button.addEventListener("click", () => {
        order = { values, name, sign: name === order.name ? -order.sign : 1 };
        draw();
        table.tHead.rows[0].cells[column].querySelector("button").focus();
      });
      return node("th", { class: name === "label" ? "" : "number", "aria-sort": sorted }, button);
    });
    const ranked = [...scan.unit.keys()].sort((a, b) => inOrder(order.values[a], order.values[b], order.sign) || a - b);
    table.tHead.replaceChildren(node("tr", {}, ...head));
    table.tBodies[0].replaceChildren(...(whole ? ranked : ranked.slice(0, FEW_ROWS)).map((k) => row(k, chosen)));
    all.hidden = whole || ranked.length <= FEW_ROWS;
    all.textContent = `Show all ${ranked.length} units`;
  };
  all.addEventListener("click", () => {
    whole = true;
    draw();
  });

  const choices = box.querySelector(".choices");
  scan.classes.forEach((name) => {
    const tick = node("input", { type: "checkbox" });
    tick.checked = classes.has(name);
    tick.addEventListener("change", () => {
      if (tick.checked) classes.add(name);
      else classes.delete(name);
      draw();
    });
    choices.append(node("label", {}, tick, ` ${name}`), " ");
  });
  box.querySelector(".columns-chooser").hidden = scan.classes.length <= FEW_CLASSES;
  box.querySelector("summary").textContent = `Choose classes (the ${Math.min(FEW_CLASSES, scan.classes.length)} most changed of ${scan.classes.length} are shown)`;

  let drawn = 0; // the width for which the view was drawn; it is hidden at first
  new ResizeObserver(() => {
    if (!box.clientWidth || box.clientWidth === drawn) return;
    if (!drawn) draw();
    drawn = box.clientWidth;
    for (const { field, draws, at } of scatters) drawScatter(field, scan, at, ...draws);
    mark(marked);
  }).observe(box);
}
document.querySelectorAll(".scan-view").forEach(scanView);
