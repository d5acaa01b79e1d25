"use strict";
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // sortable tables: a heading is a button, a cell's data-value (or its text) is the key
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent.trim();
    if (text === "") return null;
    const number = Number(text);
    return Number.isNaN(number) ? text.toLowerCase() : number;
  };
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null); // nothing goes last
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  for (const table of all("table.sortable")) {
    for (const button of all("thead button", table)) {
      button.addEventListener("click", () => {
        const heading = button.closest("th");
        const column = heading.cellIndex;
        const first = heading.classList.contains("num") ? "descending" : "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = heading.getAttribute("aria-sort") === first ? other : first;
        for (const th of all("thead th", table)) th.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [key(row, column), row]);
        rows.sort(([a], [b]) => (a === null || b === null ? compare(a, b) : sign * compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    }
  }

  // blocks of which one is shown, by run and metric
  const chosen = (name) => {
    const input = document.querySelector(`input[name="${name}"]:checked`);
    return input ? input.value : null;
  };
  for (const kind of ["subset", "distribution"]) {
    const update = () => {
      const run = chosen(`${kind}-run`);
      const metric = chosen(`${kind}-metric`);
      for (const block of all(`.${kind}-block`)) {
        block.hidden = (run !== null && block.dataset.run !== run) || (metric !== null && block.dataset.metric !== metric);
      }
    };
    for (const input of all(`input[name="${kind}-run"], input[name="${kind}-metric"]`)) input.addEventListener("change", update);
  }

  // what would another modality bring?
  const answer = document.getElementById("gain-answer");
  if (answer) {
    const percent = (value, signed) => (signed && value >= 0 ? "+" : "") + (100 * value).toFixed(1).replace("-", "\u2212");
    const element = (tag, text, className) => {
      const node = document.createElement(tag);
      if (text) node.textContent = text;
      if (className) node.className = className;
      return node;
    };
    const update = () => {
      const run = data.gains[chosen("gain-run") || Object.keys(data.gains)[0]];
      const have = all('input[name="gain-have"]:checked').map((input) => input.value);
      const boxes = all('input[name="gain-have"]');
      for (const box of boxes) box.disabled = have.length === 1 && box.checked; // at least one modality
      const name = (list) => run.modalities.map((m) => m.name).filter((m) => list.includes(m)).join("+");
      const cards = element("div", "", "answer");
      for (const region of run.regions) {
        const now = run.subsets[name(have)][region];
        const card = element("div", "", "card");
        card.append(element("h4", region));
        const big = element("p", percent(now.mean), "big");
        big.append(element("span", " %"));
        card.append(big);
        const interval = now.ci ? `${percent(now.ci[0])} to ${percent(now.ci[1])} %, ` : "";
        card.append(element("p", `${interval}n = ${now.n} cases`, "sub"));
        const list = element("ul");
        for (const m of run.modalities.filter((other) => !have.includes(other.name))) {
          const gain = now.gains[m.name];
          if (gain === undefined) continue;
          const item = element("li");
          const bar = element("span", "", "gainbar");
          const inner = element("i", "", gain < 0 ? "minus" : "");
          inner.style.width = `${Math.min(100, 200 * Math.abs(gain))}%`;
          bar.append(inner);
          item.append(element("span", `+ ${m.label}`), bar, element("b", `${percent(gain, true)} points`));
          list.append(item);
        }
        card.append(list);
        cards.append(card);
      }
      answer.replaceChildren(cards);
    };
    for (const input of all('input[name="gain-have"], input[name="gain-run"]')) input.addEventListener("change", update);
    update();
  }

  // details are open on paper
  let closed = [];
  window.addEventListener("beforeprint", () => {
    closed = all("details:not([open])");
    for (const d of closed) d.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const d of closed) d.open = false;
  });
})();
