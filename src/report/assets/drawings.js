// What is drawn: the graph of a block, the arena over the steps, cost against density.

function graphTabs(href, current) {
  return h("div", { class: "tabs", role: "navigation", "aria-label": "Phases" }, functionNow().phases.map((phase) => h("a", { href: href(functionNow(), phase.name), "aria-current": current === phase.name ? "page" : null }, `${phase.name} · ${phase.nodes.length}`)));
}

/** The parts of a graph: blocks and what is before and after them, equal ones together. */
function partsOf(phase) {
  const parts = new Map();
  phase.nodes.forEach((node, number) => {
    const name = placeName(node[PLACE]), block = blockOf(name), key = block === null ? name.split(".")[0] || "the model" : `blocks.${block}`;
    if (!parts.has(key)) parts.set(key, { key, block, numbers: [] });
    parts.get(key).numbers.push(number);
  });
  const folded = [];
  for (const part of parts.values()) {
    // Equal blocks have the same ops on the same rows in the same order; their names and numbers differ.
    const shape = part.block === null ? part.key : `${R.blocks[part.block] ? R.blocks[part.block].block : ""} ${part.numbers.map((number) => { const node = phase.nodes[number]; return `${node[OP]} ${node[TYPE].replace(/c\d+/g, "c")}`; }).sort().join(";")}`;
    const known = folded.find((it) => it.shape === shape);
    if (known) known.parts.push(part); else folded.push({ shape, parts: [part] });
  }
  return folded;
}

VIEWS.graph = (name, phaseName, chosen) => {
  const of = functionNow(), phase = of.phases.find((it) => it.name === phaseName) || legalOf(of);
  if (name && of.name !== name) return null;
  const search = h("input", { type: "search", placeholder: "Only ops and places with this text", "aria-label": "Filter the graph", style: "max-width:24rem", oninput: () => filter(search.value) });
  const folded = partsOf(phase);
  const sections = folded.map(({ parts }) => partView(of, phase, parts, chosen));
  const filter = (text) => { for (const row of document.querySelectorAll("#main tr.node")) row.hidden = !row.textContent.toLowerCase().includes(text.toLowerCase()); for (const details of document.querySelectorAll("#main details.values")) if (text) details.open = true; };
  return [h("h1", null, `Graph of ${of.name} after ${phase.name}`), h("p", { class: "lead" }, `${phase.nodes.length} values. Colours and labels are token sets: a value with `, h("span", { class: "chip set2" }, "[c2, …]"), " has rows only for the tokens that set 2 selects. Equal blocks are drawn once."),
    graphTabs((it, at) => to.phase(at, it), phase.name), search, sections];
};
function partView(of, phase, parts, chosen) {
  const shown = parts.find((part) => String(part.block) === chosen) || parts[0];
  const name = (part) => part.block === null ? part.key : `block ${part.block}`;
  const constant = (number) => R.ops[phase.nodes[number][OP]].constant;
  const drawn = shown.numbers.filter((number) => !constant(number)), constants = shown.numbers.length - drawn.length;
  return h("section", null, h("h2", null, shown.block === null ? name(shown) : link(to.block(shown.block), name(shown)), parts.length > 1 ? h("span", { class: "soft" }, ` and ${plural(parts.length - 1, "block")} like it: `, parts.filter((part) => part !== shown).map((part, idx) => [idx ? ", " : "", link(`#/graph/${of.name}/${phase.name}/${part.block}`, part.block)])) : ""),
    drawn.length > 1 && drawGraph(of, phase, drawn),
    h("details", { class: "values", open: drawn.length < 2 }, h("summary", null, `${plural(drawn.length, "value")} and ${plural(constants, "constant")} as a list`), table(nodeColumns, shown.numbers.map((number) => nodeRow(phase.nodes[number], number, phase.name, of)))));
}

const short = (text) => text.length > 23 ? `${text.slice(0, 22)}…` : text;

/** Layers from the top: a value stands below all that it uses. Within a layer, near the middle of what it uses. */
function drawGraph(of, phase, numbers) {
  const inside = new Set(numbers), layer = new Map(), layers = [];
  const operandsIn = (number) => phase.nodes[number][OPERANDS].filter((operand) => inside.has(operand));
  for (const number of numbers) {
    const at = Math.max(-1, ...operandsIn(number).map((operand) => layer.get(operand) ?? -1)) + 1;
    layer.set(number, at);
    (layers[at] = layers[at] || []).push(number);
  }
  const WIDE = 168, HIGH = 40, GAP = 18, DOWN = 36, place = new Map();
  layers.forEach((row, depth) => {
    const middle = (number) => { const over = operandsIn(number).map((operand) => place.get(operand)[0]); return over.length ? over.reduce((a, b) => a + b) / over.length : 0; };
    row.sort((a, b) => middle(a) - middle(b));
    const wanted = row.map(middle);
    let left = -Infinity;
    row.forEach((number, idx) => { const x = Math.max(wanted[idx], left); place.set(number, [x, depth * (HIGH + DOWN)]); left = x + WIDE + GAP; });
  });
  const xs = [...place.values()].map(([x]) => x), least = Math.min(...xs), width = Math.max(...xs) - least + WIDE + 24, height = layers.length * (HIGH + DOWN) + 4;
  const at = (number) => { const [x, y] = place.get(number); return [x - least + 12, y + 10]; };
  const edges = numbers.flatMap((number) => operandsIn(number).map((operand) => { const [x0, y0] = at(operand), [x1, y1] = at(number), a = [x0 + WIDE / 2, y0 + HIGH], b = [x1 + WIDE / 2, y1], bend = Math.max(14, (b[1] - a[1]) / 2); return h("path", { class: "edge", d: `M${a}C${a[0]},${a[1] + bend} ${b[0]},${b[1] - bend} ${b}` }); }));
  const boxes = numbers.map((number) => {
    const node = phase.nodes[number], [x, y] = at(number), set = setOf(node[TYPE]), outside = node[OPERANDS].filter((operand) => !inside.has(operand) && !R.ops[phase.nodes[operand][OP]].constant);
    const from = outside.length ? ` ← ${outside.map((operand) => `%${operand}`).join(", ")}` : "";
    return h("a", { svg: true, href: to.value(number, phase.name, of) }, h("title", null, `%${number} = ${node[OP]}${node[ATTRIBUTES]} : ${node[TYPE]}${from}`),
      h("rect", { class: "box", x, y, width: WIDE, height: HIGH, rx: 5, style: set === null ? null : `stroke:var(--s${set % 6});stroke-width:2.5` }),
      h("text", { x: x + 8, y: y + 16, style: "font-weight:600" }, short(`%${number} ${node[OP]}`)), h("text", { class: "dim", x: x + 8, y: y + 31, style: set === null ? null : `fill:var(--s${set % 6})` }, short(node[TYPE] + from)));
  });
  return h("div", { class: "drawing", tabindex: 0 }, h("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${numbers.length} values` }, edges, boxes));
}

VIEWS.memory = () => {
  const plan = planNow(), program = programNow();
  const of = plan && plan.functions.find((it) => it.name === functionNow().name);
  if (!of) return [h("h1", null, "Memory"), h("p", null, "There is no plan.")];
  const live = of.buffers.map((buffer, idx) => [buffer, idx]).filter(([buffer]) => buffer.place && buffer.row_bytes > 0);
  const W = 980, H = 420, steps = of.steps.length, x = (step) => 60 + (W - 70) * step / steps, y = (row) => 10 + (H - 40) * row / Math.max(1, of.row_bytes);
  const boxes = live.map(([buffer]) => {
    const [first, last] = buffer.live || [0, steps - 1], fill = buffer.live ? `var(--s${colourOf(buffer.name)})` : "var(--soft)";
    return h("a", { svg: true, href: to.step(first), "aria-label": `${buffer.name}, steps ${first} to ${last}` }, h("title", null, `${buffer.name}: ${buffer.row_bytes} bytes a token, ${buffer.live ? `steps ${first} to ${last}` : "given by the caller or wanted by it"}`),
      h("rect", { class: "box", x: x(first), y: y(buffer.place[1]), width: Math.max(2, x(last + 1) - x(first)), height: Math.max(1.5, y(buffer.row_bytes) - 10), style: `fill:${fill};fill-opacity:.35;stroke:${fill};stroke-width:.8` }),
      x(last + 1) - x(first) > 8 * buffer.name.length && y(buffer.row_bytes) - 10 > 13 && h("text", { x: x(first) + 5, y: y(buffer.place[1]) + 13 }, buffer.name));
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * of.row_bytes));
  const unshared = live.reduce((sum, [buffer]) => sum + buffer.row_bytes, 0);
  return [h("h1", null, "Memory"), h("p", { class: "lead" }, `The arena of ${functionNow().name}: ${of.row_bytes} bytes a token and ${bytes(of.fixed_bytes)} besides. Without reuse it would be ${unshared} bytes a token.`),
    h("h2", null, "The arena over the steps"), h("p", { class: "soft" }, "From left to right the steps, from top to bottom the bytes of a token. Buffers that are never alive together share a place. Grey ones are the caller's, and there all the time. A box leads to the step that writes it first."),
    h("div", { class: "drawing" }, h("svg", { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "arena" }, boxes,
      ticks.map((tick) => h("text", { class: "dim", x: 52, y: y(tick) + 4, "text-anchor": "end" }, tick)), [0, 0.25, 0.5, 0.75, 1].map((share) => Math.round(share * (steps - 1))).map((step) => h("text", { class: "dim", x: x(step), y: H - 8, "text-anchor": step === steps - 1 && step > 0 ? "end" : "start" }, `step ${step}`)))),
    h("h2", null, "Buffers"), table([["buffer"], ["type"], ["columns", 1], ["bytes a token", 1], ["bytes", 1], ["offset"], ["alive"]], of.buffers.map((buffer) => [code(buffer.name), buffer.dtype, buffer.cols, buffer.row_bytes, buffer.fixed_bytes, buffer.place ? `${buffer.place[0]} + ${buffer.place[1]} n` : `state ${buffer.state}`, buffer.live ? [link(to.step(buffer.live[0]), buffer.live[0]), " to ", link(to.step(buffer.live[1]), buffer.live[1])] : "always"])),
    plan.states.length > 0 && [h("h2", null, "States"), h("p", { class: "soft" }, "What one step leaves for the next."), table([["state"], ["type"], ["rows"], ["columns", 1]], plan.states.map((it) => [code(it.name), it.dtype, it.rows, it.cols]))],
    h("h2", null, "Constants"), h("p", { class: "soft" }, `${plan.constants.length} constants, ${program ? bytes(program.constant_bytes) : ""}, as the kernels want them.`), h("details", null, h("summary", null, "All of them"), table([["constant"], ["type"], ["rows", 1], ["columns", 1], ["bytes", 1]], plan.constants.map((it) => [code(it.name), it.dtype, it.rows, it.cols, it.bytes])))];
};
const colourOf = (name) => [...name.replace(/\d+/g, "")].reduce((sum, c) => (sum * 31 + c.charCodeAt(0)) % 997, 7) % 6;

const atDensity = (layer, density) => layer.at.find((at) => Math.abs(at.density - density) < 1e-9);
const breakEven = (layer) => layer.break_even === null ? "never" : layer.break_even > 0 ? percent(layer.break_even) : "everywhere: nothing is skipped";
const SHOWN = [0.05, 0.1, 0.25, 0.5, 1];
function costTable(layers) {
  return table([["part"], ["kernels", 1], ...SHOWN.map((density) => [`at ${percent(density)}`, 1]), ["masked", 1], ["masked is no slower from", 1]], layers.map((layer) => [
    blockOf(layer.name) === null ? layer.name : link(to.block(blockOf(layer.name)), layer.name), layer.kernels, ...SHOWN.map((density) => time(atDensity(layer, density).time_ns)), time(atDensity(layer, 1).masked_ns), breakEven(layer)]));
}

VIEWS.cost = () => {
  const cost = R.costs[state.program];
  if (!cost) return [h("h1", null, "Cost against density"), h("p", null, "There is no cost model for this target.")];
  const { layers, total } = cost.cost, chosen = new Map(layers.map((layer) => [layer.name, specified(layer.name)]));
  const varies = (layer) => new Set(layer.at.map((at) => at.time_ns)).size > 1;
  const rows = new Map(), sumOut = h("output", { class: "r" }), maskedOut = h("output", { class: "r" }), ratioOut = h("output", { class: "r" });
  const update = () => {
    let sum = 0, masked = 0;
    for (const layer of layers) {
      const at = atDensity(layer, chosen.get(layer.name)), row = rows.get(layer.name);
      sum += at.time_ns; masked += at.masked_ns;
      if (row.input) { row.input.value = 20 * at.density; row.input.setAttribute("aria-valuetext", percent(at.density)); }
      row.density.textContent = varies(layer) ? percent(at.density) : "";
      row.own.textContent = time(at.time_ns); row.masked.textContent = time(at.masked_ns); row.ratio.textContent = `${(at.masked_ns / at.time_ns).toFixed(2)}×`;
    }
    sumOut.textContent = time(sum); maskedOut.textContent = time(masked); ratioOut.textContent = `${(masked / sum).toFixed(2)}×`;
  };
  const sliders = layers.map((layer) => {
    const input = varies(layer) ? h("input", { type: "range", min: 0, max: 20, step: 1, value: 5, "aria-label": `density of ${layer.name}`, "data-layer": layer.name, oninput: (event) => { chosen.set(layer.name, event.target.value / 20); update(); } }) : null;
    const row = { input, density: h("output", { class: "r" }), own: h("output", { class: "r" }), masked: h("output", { class: "r" }), ratio: h("output", { class: "r" }) };
    rows.set(layer.name, row);
    return h("div", { class: "slider", "data-part": layer.name }, blockOf(layer.name) === null ? h("span", null, layer.name) : link(to.block(blockOf(layer.name)), `block ${blockOf(layer.name)}`), input || h("span", { class: "soft" }, "runs for every token"), row.density, row.own, row.masked, row.ratio);
  });
  const all = h("input", { type: "range", min: 0, max: 20, step: 1, value: 5, "aria-label": "density of all blocks", id: "all-densities", oninput: (event) => { for (const layer of layers) chosen.set(layer.name, event.target.value / 20); update(); } });
  const found = [h("h1", null, "Cost against density"), h("p", { class: "lead" }, `Predicted for ${cost.target}, ${cost.cost.tokens} tokens a step. ${cost.note}`),
    h("h2", null, "Move the densities"), h("div", { class: "slider head" }, h("span", null, "part"), h("span", null, "density"), h("span"), h("span", { class: "r" }, "gathered"), h("span", { class: "r" }, "masked"), h("span", { class: "r" }, "saves")),
    h("div", { class: "slider" }, h("b", null, "all blocks"), all, h("span"), h("span"), h("span"), h("span")), sliders,
    h("div", { class: "slider total" }, h("span", null, "total"), h("span"), h("span"), sumOut, maskedOut, ratioOut),
    h("h2", null, "Time against density, all routers alike"), costChart(total), h("p", null, total.break_even === null ? "The masked form is slower at every density." : `From a density of ${percent(total.break_even)} on the masked form is no slower.`),
    h("h2", null, "Each part"), costTable([...layers, total]),
    h("h2", null, "As polynomials"), h("p", { class: "soft" }, "n is the tokens of the step, c0, c1, … what each router executes."), layers.map((layer) => h("details", null, h("summary", null, layer.name), table([["figure"], ["polynomial"]], [["multiply-adds", code(layer.macs)], ["bytes", code(layer.bytes)], ...(layer.work ? [["ns", code(layer.work)]] : [])])))];
  update();
  return found;
};
/** The density that the spec gives a part, on the grid of the sliders. */
function specified(name) {
  const block = R.blocks[blockOf(name)], shares = block ? block.routers.map((router) => router.density) : [];
  return shares.length ? Math.round(20 * Math.max(...shares)) / 20 : 0.25;
}
function costChart(layer) {
  const W = 720, H = 300, top = Math.max(...layer.at.flatMap((at) => [at.time_ns, at.masked_ns])) * 1.05, x = (density) => 80 + (W - 180) * density, y = (ns) => H - 40 - (H - 60) * ns / top;
  const curve = (of, dash, colour) => h("polyline", { points: layer.at.map((at) => `${x(at.density)},${y(of(at))}`).join(" "), style: `fill:none;stroke:${colour};stroke-width:2.5;stroke-dasharray:${dash}` });
  const last = layer.at[layer.at.length - 1], labels = [["gathered", last.time_ns, "var(--s0)"], ["masked", last.masked_ns, "var(--s1)"]];
  if (Math.abs(y(labels[0][1]) - y(labels[1][1])) < 16) labels[labels[0][1] < labels[1][1] ? 0 : 1].push(16);
  return h("svg", { width: W, height: H, viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "time against density" },
    [0, 0.25, 0.5, 0.75, 1].map((share) => [h("line", { class: "axis", x1: 80, x2: W - 100, y1: y(share * top), y2: y(share * top) }), h("text", { class: "dim", x: 74, y: y(share * top) + 4, "text-anchor": "end" }, time(share * top)), h("text", { class: "dim", x: x(share), y: H - 20, "text-anchor": "middle" }, percent(share))]),
    curve((at) => at.masked_ns, "7 4", "var(--s1)"), curve((at) => at.time_ns, "none", "var(--s0)"), labels.map(([name, ns, colour, shift]) => h("text", { x: x(1) + 8, y: y(ns) + 4 + (shift || 0), style: `fill:${colour}` }, name)), h("text", { class: "dim", x: x(0.5), y: H - 4, "text-anchor": "middle" }, "share of the tokens that every router executes"));
}

render();
