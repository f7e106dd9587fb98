"use strict";
// Sliders between images before and after, and tables that can be sorted.
for (const pair of document.querySelectorAll(".pair")) {
  const slider = pair.querySelector("input[type=range]");
  const move = () => pair.style.setProperty("--cut", `${slider.value}%`);
  slider.addEventListener("input", move);
  move();
}
for (const group of document.querySelectorAll(".pairs")) {
  const change = () => {
    group.dataset.show = group.querySelector("input[type=radio]:checked").value;
    group.classList.toggle("show-region", !!group.querySelector("input[name=outline]")?.checked);
  };
  group.querySelector(".switches").addEventListener("change", change);
  change();
}

function cellValue(row, column, kind) {
  const text = row.cells[column].textContent.trim().replace("−", "-");
  if (kind === "text") return text.toLowerCase();
  return text === "" ? NaN : parseFloat(text);
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
      const sign = order === "ascending" ? 1 : -1;
      const keyed = [...table.tBodies[0].rows].map((row) => [cellValue(row, column, button.dataset.kind), row]);
      keyed.sort(([a], [b]) => {
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b); // missing numbers come last
        return a < b ? -sign : a > b ? sign : 0;
      });
      table.tBodies[0].append(...keyed.map(([, row]) => row));
    });
  });
}
