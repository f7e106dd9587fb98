"use strict";
// Tables: sorted by their headings; with a scroll bar of their own, and reached by the keyboard, where they are too wide.
function cellValue(row, column, kind) {
  const text = row.cells[column].textContent.trim().replace("−", "-");
  if (kind === "text") return text.toLowerCase();
  const value = parseFloat(text);
  return value === value ? value : null; // what is not a number, such as a dash
}

// The order of two values; missing numbers come last in both directions.
function inOrder(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  return a < b ? -sign : a > b ? sign : 0;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = heading.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headings.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", order);
      const keyed = [...table.tBodies[0].rows].map((row) => [cellValue(row, column, button.dataset.kind), row]);
      keyed.sort(([a], [b]) => inOrder(a, b, order === "ascending" ? 1 : -1));
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}

const tablesOf = new Map(); // how many tables each heading has: regions of a page need different names
for (const table of document.querySelectorAll("section table:not(.pattern)")) {
  if (table.closest(".scroller")) continue;
  const frame = document.createElement("div");
  frame.className = "scroller";
  table.before(frame);
  frame.append(table);
  const title = table.closest("section").querySelector("h2, h3");
  const heading = title ? title.textContent.trim() : "";
  tablesOf.set(heading, (tablesOf.get(heading) ?? 0) + 1);
  const label = `Table ${tablesOf.get(heading)}${heading && `: ${heading}`}`;
  const fit = () => {
    const wide = frame.scrollWidth > frame.clientWidth;
    for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", label]]) {
      if (wide) frame.setAttribute(name, value);
      else frame.removeAttribute(name);
    }
  };
  new ResizeObserver(fit).observe(frame);
}
