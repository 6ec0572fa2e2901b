// The trace: from a number, or a file, back to what it was made from.
(() => {
  const data = JSON.parse(document.getElementById("lineage-data").textContent);
  const root = document.getElementById("lineage-trace");
  const [list, way, about] = ["list", "way", "about"].map((name) => root.querySelector(".lineage-" + name));
  const find = document.getElementById("lineage-find");
  const before = data.boxes.map(() => []);
  for (const [from, to, count] of data.arrows) before[to].push([from, count]);
  let chosen = null;
  let shown = new Map();
  let told = null;

  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };

  function ancestors(start) {
    const found = new Set([start]);
    const waiting = [start];
    while (waiting.length) {
      for (const [from] of before[waiting.pop()]) {
        if (!found.has(from)) { found.add(from); waiting.push(from); }
      }
    }
    return found;
  }

  function choose(start) {
    chosen = start;
    for (const button of list.children) button.classList.toggle("chosen", button.start === start);
    way.replaceChildren(document.createElementNS("http://www.w3.org/2000/svg", "svg"));
    shown = new Map();
    if (start.value) {
      const row = make("div", undefined, "lineage-row");
      const number = make("button", start.name, "lineage-box");
      number.append(make("small", start.value));
      number.addEventListener("click", () => tell(start.box));
      row.append(number);
      way.append(row);
      shown.set(-1, number);
    }
    const rows = new Map();
    for (const index of [...ancestors(start.box)].sort((a, b) => data.boxes[b].level - data.boxes[a].level || a - b)) {
      const box = data.boxes[index];
      if (!rows.has(box.level)) {
        rows.set(box.level, make("div", undefined, "lineage-row"));
        way.append(rows.get(box.level));
      }
      const name = box.name.includes("/") ? box.name.split("/").slice(-2).join("/") : box.name;
      const button = make("button", name, "lineage-box " + box.state.replace(" ", "-"));
      button.title = box.name;
      button.append(make("small", box.count ? box.count + " files" : (box.sha256 || box.state).slice(0, 12)));
      button.addEventListener("click", () => tell(index));
      rows.get(box.level).append(button);
      shown.set(index, button);
    }
    tell(start.box);
  }

  function draw(near) {
    const svg = way.querySelector("svg");
    if (!svg) return;
    svg.setAttribute("width", 0); // or the old lines would keep the frame wide
    svg.setAttribute("height", 0);
    const origin = way.getBoundingClientRect();
    svg.setAttribute("width", way.scrollWidth);
    svg.setAttribute("height", way.scrollHeight);
    const paths = [];
    const line = (upper, lower, isNear) => {
      const [a, b] = [upper.getBoundingClientRect(), lower.getBoundingClientRect()];
      const [x, y] = [a.left + a.width / 2 - origin.left + way.scrollLeft, a.bottom - origin.top];
      const [u, v] = [b.left + b.width / 2 - origin.left + way.scrollLeft, b.top - origin.top];
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M${x},${y}C${x},${(y + v) / 2} ${u},${(y + v) / 2} ${u},${v}`);
      if (isNear) path.setAttribute("class", "near");
      paths.push(path);
    };
    if (shown.has(-1)) line(shown.get(-1), shown.get(chosen.box), near === chosen.box);
    for (const [from, to] of data.arrows) {
      if (shown.has(from) && shown.has(to)) line(shown.get(to), shown.get(from), near === from || near === to);
    }
    svg.replaceChildren(...paths);
  }

  function tell(index) {
    told = index;
    for (const [key, button] of shown) button.classList.toggle("chosen", key === index);
    const box = data.boxes[index];
    const facts = make("dl");
    const fact = (name, value) => { if (value) facts.append(make("dt", name), make("dd", value)); };
    fact("kind", box.kind.replaceAll("_", " "));
    fact("state", box.states.map(([state, count]) => (box.count ? count + " " : "") + state).join(", "));
    fact("", box.why);
    fact("SHA-256", box.sha256);
    fact("made by", box.stage);
    fact("source digest of that stage", box.code.join(", "));
    fact("made from", before[index].map(([from, count]) =>
      data.boxes[from].name + (count > 1 ? ` (${count.toLocaleString("en")} arrows)` : "")).join("; "));
    const parts = [make("h4", box.name), facts];
    if (box.rows.length) {
      const table = make("table");
      for (const row of box.rows) {
        const line = make("tr");
        for (const cell of row) line.append(make("td", cell));
        table.append(line);
      }
      const frame = make("div", undefined, "rows");
      frame.append(table);
      const more = Number(box.count) - box.rows.length;
      parts.push(frame);
      if (more > 0) parts.push(make("small", `and ${more} more, in the table beside this page`));
    }
    about.replaceChildren(...parts);
    draw(index);
  }

  function search() {
    const wanted = find.value.toLowerCase();
    list.replaceChildren(...data.starts
      .filter((start) => start.name.toLowerCase().includes(wanted))
      .slice(0, 200)
      .map((start) => {
        const button = make("button", start.name);
        button.start = start;
        button.setAttribute("role", "option");
        if (start.value) button.append(make("small", start.value));
        button.classList.toggle("chosen", start === chosen);
        button.addEventListener("click", () => choose(start));
        return button;
      }));
  }

  find.addEventListener("input", search);
  window.addEventListener("resize", () => draw(told));
  search();
  if (data.starts.length) choose(data.starts[0]);
})();
