/* Columns sort by data-sort, else by their text; the order of equal rows stays. */
function sortBy(header) {
  const table = header.closest("table"), body = table.tBodies[0];
  const at = header.cellIndex, up = header.getAttribute("aria-sort") !== "ascending";
  const key = (row) => row.cells[at].dataset.sort;
  const order = (a, b) =>
    key(a) !== undefined && key(b) !== undefined
      ? key(a) - key(b)
      : row(a).localeCompare(row(b), "en", { numeric: true });
  const row = (r) => r.cells[at].textContent;
  const rows = [...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a)));
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  body.append(...rows);
}

function watchTables() {
  for (const button of document.querySelectorAll("thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
}
