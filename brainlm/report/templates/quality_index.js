// The table of all recordings. Only the rows in view are in the document, so that 20,000 of them
// sort, filter and scroll as 20 do.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const count = data.ids.length;
  const all = Array.from({ length: count }, (_, row) => row);
  const HEIGHT = 29, AROUND = 12, LEAST = 10;
  const columns = data.columns;
  for (const column of columns) {
    column.values = Float64Array.from(data.values[column.key], (v) => (v === null ? NaN : v));
    column.limit = NaN;
    column.rule = data.rules.find((rule) => rule.key === column.key);
  }

  // --- outliers: how far from the median of the same site and task, towards the bad side ---
  const median = (numbers) => {
    const sorted = Float64Array.from(numbers).sort();
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  };
  const groups = new Map();
  for (const row of all) {
    const key = data.site[row] + "\t" + data.task[row];
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(row);
  }
  const robust = (values, rows) => {
    const known = rows.map((row) => values[row]).filter((value) => !Number.isNaN(value));
    if (!known.length) return null;
    const centre = median(known);
    return { centre, spread: 1.4826 * median(known.map((value) => Math.abs(value - centre))) };
  };
  for (const column of columns) {
    column.z = new Float64Array(count);
    if (!column.bad) continue;
    const whole = robust(column.values, all);
    for (const rows of groups.values()) {
      const own = rows.length < LEAST ? whole : robust(column.values, rows);
      for (const row of rows) {
        const z = own && own.spread ? (column.values[row] - own.centre) / own.spread : 0;
        column.z[row] = Number.isNaN(z) ? 0 : column.bad === "high" ? z : -z;
      }
    }
  }

  // --- who is out, and why ---
  const spell = (column, value) => {
    if (Number.isNaN(value)) return "";
    return column.unit === "%" ? (100 * value).toFixed(1) + "%" : value.toFixed(column.digits);
  };
  const isBeyond = (side, value, limit) => (side === "low" ? value < limit : value > limit);
  const decided = new Map(); // row -> {out, reason}: what a person said
  const saved = new Map();
  all.forEach((row) => {
    if (data.byHand[row]) decided.set(row, { out: true, reason: data.byHand[row] });
  });
  decided.forEach((said, row) => saved.set(row, said.reason));
  const flags = new Array(count).fill("");
  const flag = () => {
    const limit = get("use-z").checked ? Number(get("z").value) || Infinity : Infinity;
    const asked = columns.filter((column) => !Number.isNaN(column.limit));
    for (const row of all) {
      const reasons = [];
      for (const column of asked) {
        if (isBeyond(column.bad || "high", column.values[row], column.limit)) {
          const side = column.bad === "low" ? "below" : "above";
          reasons.push(`${column.label} ${spell(column, column.values[row])} ${side} ${spell(column, column.limit)}`);
        }
      }
      for (const column of columns) {
        if (column.z[row] >= limit) reasons.push(`${column.label} ${spell(column, column.values[row])} is an outlier (robust z ${column.z[row].toFixed(1)})`);
      }
      flags[row] = reasons.join("; ");
    }
  };
  const isOut = (row) => (decided.has(row) ? decided.get(row).out : flags[row] !== "");
  const reasonOf = (row) => (decided.has(row) ? decided.get(row).reason : flags[row]);
  const byRule = (row) => columns.some((c) => c.rule && isBeyond(c.rule.side, c.values[row], c.rule.limit));
  const isOdd = (row) => columns.some((column) => column.z[row] >= (Number(get("z").value) || Infinity));

  // --- which rows, in which order ---
  let view = all, order = { key: "id", down: false };
  const texts = { id: data.ids, site: data.site, task: data.task, split: data.split, state: data.state, notes: data.notes };
  const kinds = {
    "": () => true, out: isOut, flagged: (row) => flags[row] !== "", odd: isOdd, rules: byRule,
    missing: (row) => data.state[row] !== "", in: (row) => !isOut(row) && !byRule(row) && !data.state[row],
  };
  const arrange = () => {
    const words = get("search").value.trim().toLowerCase();
    const kept = kinds[get("show").value];
    view = all.filter((row) => {
      for (const name of ["site", "task", "split"]) {
        const wanted = get(name).value;
        if (wanted && data[name][row] !== wanted.slice(1)) return false;
      }
      if (!kept(row)) return false;
      if (!words) return true;
      return [data.ids[row], data.notes[row], data.state[row], reasonOf(row)].some((text) => text.toLowerCase().includes(words));
    });
    const sign = order.down ? -1 : 1;
    const column = columns.find((one) => one.key === order.key);
    const compare = column
      ? (a, b) => {
        const x = column.values[a], y = column.values[b];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      }
      : order.key === "out"
        ? (a, b) => sign * (isOut(b) - isOut(a))
        : (a, b) => {
          const x = order.key === "reason" ? reasonOf(a) : texts[order.key][a];
          const y = order.key === "reason" ? reasonOf(b) : texts[order.key][b];
          if (!x || !y) return !x - !y;
          return x < y ? -sign : x > y ? sign : 0;
        };
    view.sort((a, b) => compare(a, b) || a - b);
  };

  // --- the table ---
  const box = get("table"), head = box.querySelector("thead"), body = box.querySelector("tbody");
  box.style.maxHeight = `${(count + 2) * HEIGHT}px`; // few recordings need no tall table
  const heads = [
    ["out", "out"], ["id", "recording"], ["site", "site"], ["task", "task"], ["split", "split"],
    ["state", "state"], ["reason", "why out"],
    ...columns.map((column) => [column.key, column.label + (column.unit && column.unit !== "%" ? ` (${column.unit})` : "")]),
    ["notes", "notes"],
  ];
  const make = (tag, text, name) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  };
  const headRow = make("tr");
  for (const [key, label] of heads) {
    const cell = make("th"), button = make("button", label);
    button.type = "button";
    cell.dataset.key = key;
    button.addEventListener("click", () => {
      order = { key, down: order.key === key ? !order.down : false };
      refresh();
    });
    cell.append(button);
    headRow.append(cell);
  }
  head.append(headRow);
  let opened = -1;
  const told = (text) => {
    const cell = make("td", text, "told");
    cell.title = text;
    return cell;
  };
  const line = (row) => {
    const made = make("tr", undefined, (isOut(row) ? "out " : "") + (row === opened ? "opened" : ""));
    made.dataset.row = row;
    const mark = make("input");
    mark.type = "checkbox";
    mark.checked = isOut(row);
    mark.setAttribute("aria-label", `leave out ${data.ids[row]}`);
    const first = make("td");
    first.append(mark);
    const name = make("td"), link = make("button", data.ids[row]);
    link.type = "button";
    name.append(link);
    made.append(first, name, make("td", data.site[row]), make("td", data.task[row]), make("td", data.split[row]), told(data.state[row]), told(reasonOf(row)));
    for (const column of columns) {
      const value = column.values[row];
      const odd = column.z[row] >= (Number(get("z").value) || Infinity) ? " odd" : "";
      const rule = column.rule && isBeyond(column.rule.side, value, column.rule.limit) ? " beyond" : "";
      made.append(make("td", spell(column, value), "num" + odd + rule));
    }
    made.append(told(data.notes[row]));
    return made;
  };
  const spacer = (rows) => {
    const made = make("tr", undefined, "spacer"), cell = make("td");
    cell.colSpan = heads.length;
    cell.style.height = `${rows * HEIGHT}px`;
    made.append(cell);
    return made;
  };
  const draw = () => {
    const first = Math.max(0, Math.min(Math.floor(box.scrollTop / HEIGHT) - AROUND, view.length));
    const last = Math.min(view.length, first + Math.ceil(box.clientHeight / HEIGHT) + 2 * AROUND);
    body.replaceChildren(spacer(first), ...view.slice(first, last).map(line), spacer(view.length - last));
  };
  const refresh = () => {
    flag();
    arrange();
    for (const cell of headRow.children) {
      if (cell.dataset.key === order.key) cell.setAttribute("aria-sort", order.down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    get("count").textContent = `${view.length.toLocaleString("en")} of ${count.toLocaleString("en")} shown, ${all.filter(isOut).length.toLocaleString("en")} left out here`;
    cards.forEach((redraw) => redraw());
    draw();
    if (opened >= 0) tell();
  };
  box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  window.addEventListener("resize", draw);
  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr[data-row]");
    if (!line) return;
    const row = Number(line.dataset.row);
    if (event.target.type === "checkbox") decide(row, event.target.checked);
    else if (event.target.tagName === "BUTTON") open(row);
  });
  const decide = (row, out, reason) => {
    decided.set(row, { out, reason: out ? reason || flags[row] || saved.get(row) || "left out by eye" : "" });
    refresh();
  };

  const cards = columns.map((column) =>
    limitCard(column, { make, spell, isBeyond, rows: () => view, changed: () => refresh() }));

  // --- the page of a recording ---
  const tell = () => {
    const out = isOut(opened);
    get("opened").textContent = data.ids[opened];
    get("toggle").textContent = out ? "Keep" : "Leave out";
    get("toggle").setAttribute("aria-pressed", String(out));
    if (document.activeElement !== get("reason")) get("reason").value = reasonOf(opened);
  };
  const open = (row) => {
    const address = `recordings/${encodeURIComponent(data.ids[row])}.html`;
    opened = row;
    get("panel").hidden = false;
    get("apart").href = address;
    get("frame").hidden = data.state[row] !== "";
    get("apart").hidden = data.state[row] !== "";
    get("absent").hidden = data.state[row] === "";
    get("absent").textContent = data.state[row];
    if (!data.state[row]) get("frame").src = address;
    const place = view.indexOf(row) * HEIGHT;
    if (place >= 0 && (place < box.scrollTop || place > box.scrollTop + box.clientHeight - 3 * HEIGHT)) box.scrollTop = place - 3 * HEIGHT;
    tell();
    draw();
  };
  const step = (by) => {
    const at = view.indexOf(opened) + by;
    if (at >= 0 && at < view.length) open(view[at]);
  };
  const close = () => { opened = -1; get("panel").hidden = true; draw(); };
  get("next").addEventListener("click", () => step(1));
  get("previous").addEventListener("click", () => step(-1));
  get("close").addEventListener("click", close);
  get("toggle").addEventListener("click", () => decide(opened, !isOut(opened), get("reason").value.trim()));
  get("undo").addEventListener("click", () => { decided.delete(opened); refresh(); get("reason").value = reasonOf(opened); });
  get("reason").addEventListener("change", () => decide(opened, true, get("reason").value.trim()));
  document.addEventListener("keydown", (event) => {
    if (opened < 0 || event.target.closest("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = { j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), x: () => get("toggle").click(), Escape: close };
    if (acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });

  // --- the list to put into the study ---
  const list = () => {
    const lines = all.filter(isOut).map((row) => [data.ids[row], reasonOf(row)]);
    lines.push(...Object.entries(data.keptLines));
    lines.sort((a, b) => (a[0] < b[0] ? -1 : 1));
    const clean = (text) => text.replace(/\s+/g, " ").trim();
    return "recording_id\treason\n" + lines.map(([id, why]) => `${id}\t${clean(why)}\n`).join("");
  };
  let saidLast = ""; // what has been saved: leaving with more than that is asked back
  get("export").addEventListener("click", () => {
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([list()], { type: "text/tab-separated-values" }));
    link.download = "exclude.tsv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saidLast = list();
  });
  window.addEventListener("beforeunload", (event) => { if (list() !== saidLast) event.preventDefault(); });

  for (const name of ["site", "task", "split"]) {
    const values = [...new Set(data[name])].sort();
    get(name).append(new Option(`any ${name}`, ""), ...values.map((value) => new Option(value || "none", "=" + value)));
    get(name).hidden = values.length < 2;
    get(name).addEventListener("change", () => { box.scrollTop = 0; refresh(); });
  }
  get("show").addEventListener("change", () => { box.scrollTop = 0; refresh(); });
  get("search").addEventListener("input", () => { box.scrollTop = 0; refresh(); });
  get("z").addEventListener("input", refresh);
  get("use-z").addEventListener("change", refresh);
  get("clear").addEventListener("click", () => {
    columns.forEach((column) => { column.limit = NaN; get(`limit-${column.key}`).value = ""; });
    get("use-z").checked = false;
    refresh();
  });
  refresh();
  saidLast = list();
})();
