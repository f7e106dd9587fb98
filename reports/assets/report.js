"use strict";
// Sort and filter the table of units.
const table = document.getElementById("units");
const body = table.tBodies[0];
const rows = [...body.rows];
const words = rows.map((row) => [...row.cells].slice(0, 3).map((cell) => cell.textContent.trim().toLowerCase()));
const headings = [...table.tHead.rows[0].cells];

function value(row, column, kind) {
  const text = row.cells[column].textContent.trim();
  if (kind === "text") return text.toLowerCase();
  return text === "" ? NaN : parseFloat(text);
}

headings.forEach((heading, column) => {
  const button = heading.querySelector("button");
  if (!button) return;
  button.addEventListener("click", () => {
    const kind = button.dataset.kind;
    const first = button.dataset.first || (kind === "text" ? "ascending" : "descending");
    const now = heading.getAttribute("aria-sort");
    const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    headings.forEach((other) => other.hasAttribute("aria-sort") && other.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const keyed = rows.map((row) => [value(row, column, kind), row]);
    keyed.sort(([a], [b]) => {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // what has no number comes last
      return a < b ? -sign : a > b ? sign : 0;
    });
    body.append(...keyed.map(([, row]) => row));
  });
});

const find = document.getElementById("find");
const only = document.getElementById("only");
const shown = document.getElementById("shown");

function filter() {
  const wanted = find.value.trim().toLowerCase();
  let count = 0;
  rows.forEach((row, index) => {
    const fits = words[index].some((word) => (/^\d+$/.test(wanted) ? word === wanted : word.includes(wanted)));
    row.hidden = !fits || (only.checked && row.dataset.labelled !== "1");
    count += !row.hidden;
  });
  shown.textContent = `${count} of ${rows.length} ${table.dataset.noun}s`;
}

find.addEventListener("input", filter);
only.addEventListener("change", filter);
filter();
