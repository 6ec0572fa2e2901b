// The histogram of one number with its limits. `rows` gives those that are shown, `changed` is called
// when a limit is set; returns a function that draws the histogram anew.
const limitCard = (column, { make, spell, isBeyond, rows, changed }) => {
  const BINS = 32, WIDE = 200, HIGH = 46, SVG = "http://www.w3.org/2000/svg";
  const card = make("div", undefined, "limit"), low = column.bad === "low";
  const drawn = document.createElementNS(SVG, "svg");
  drawn.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
  drawn.setAttribute("preserveAspectRatio", "none");
  const ends = make("small"), label = make("label", low ? "flag below" : "flag above"), input = make("input");
  input.type = "number";
  input.step = "any";
  input.id = `limit-${column.key}`;
  const scale = column.unit === "%" ? 100 : 1; // shares are shown, and asked for, in per cent
  if (column.rule) input.placeholder = `config: ${+(scale * column.rule.limit).toPrecision(6)}`;
  label.append(input);
  card.append(make("b", column.label + (column.unit ? ` (${column.unit})` : "")), drawn, ends, label);
  document.getElementById("limits").append(card);
  const known = column.values.filter((value) => !Number.isNaN(value)).sort();
  const from = known[Math.floor(0.002 * (known.length - 1))];
  const to = known[Math.ceil(0.998 * (known.length - 1))];
  const span = to - from || 1;
  ends.append(make("span", spell(column, from)), make("span", spell(column, to)));
  input.addEventListener("input", () => {
    column.limit = input.value === "" ? NaN : Number(input.value) / scale;
    changed();
  });
  drawn.addEventListener("click", (event) => {
    const at = event.offsetX / drawn.clientWidth;
    input.value = +(scale * (from + at * span)).toPrecision(4);
    input.dispatchEvent(new Event("input"));
  });
  const shape = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    drawn.append(made);
  };
  return () => {
    const bins = new Array(BINS).fill(0);
    for (const row of rows()) {
      const value = column.values[row];
      if (!Number.isNaN(value)) bins[Math.max(0, Math.min(BINS - 1, Math.floor((value - from) / span * BINS)))] += 1;
    }
    const most = Math.max(1, ...bins);
    drawn.replaceChildren();
    bins.forEach((number, bin) => {
      const tall = number ? Math.max(1, number / most * (HIGH - 2)) : 0;
      const beyond = isBeyond(column.bad || "high", from + (bin + 0.5) / BINS * span, column.limit);
      shape("rect", { x: bin * WIDE / BINS, y: HIGH - tall, width: WIDE / BINS - 0.6, height: tall, class: beyond ? "beyond" : "" });
    });
    const upright = (value, name) => {
      const x = (value - from) / span * WIDE;
      if (x >= 0 && x <= WIDE) shape("line", { x1: x, x2: x, y1: 0, y2: HIGH, class: name });
    };
    if (column.rule) upright(column.rule.limit, "config");
    if (!Number.isNaN(column.limit)) upright(column.limit, "ours");
  };
};
