for (const table of document.querySelectorAll("table.sortable")) {
  const value = (row, place) => (row.cells[place].querySelector("b") ?? row.cells[place]).textContent.trim();
  const number = (text) => parseFloat(text.replace(/^[<+] ?|,/g, ""));
  table.tHead.addEventListener("click", ({ target }) => {
    const head = target.closest("th"), body = table.tBodies[0];
    if (!head) return;
    const place = head.cellIndex, up = head.ariaSort === "descending" ? 1 : -1;
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up > 0 ? "ascending" : "descending");
    const rows = [...body.rows].map((row) => [value(row, place), row]);
    rows.sort(([a], [b]) => {
      const x = number(a), y = number(b);
      if (isNaN(x) || isNaN(y)) return isNaN(x) && isNaN(y) ? up * a.localeCompare(b) : isNaN(x) - isNaN(y);
      return up * (x - y);
    });
    body.append(...rows.map(([, row]) => row));
  });
}
