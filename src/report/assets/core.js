// The frame of the report: elements, routes, what points to what, the search. Views add themselves to VIEWS.
"use strict";
const R = window.REPORT;
// A phase that changed nothing has no graph of its own.
for (const of of R.functions) for (const phase of of.phases) if (phase.same !== undefined) phase.nodes = of.phases[phase.same].nodes;

/** An element. Attributes that begin with "on" are listeners; children are elements or text, never markup. */
function h(tag, attributes, ...children) {
  const svg = ["svg", "g", "path", "rect", "text", "line", "circle", "title", "polyline"].includes(tag) || (attributes && attributes.svg);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false || name === "svg") continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
  return element;
}
const link = (href, ...children) => h("a", { href }, children);
const code = (...children) => h("code", null, children);

/** Text with code between backticks. */
const withCode = (text) => text.replace(/\s*\n\s*/g, " ").split("`").map((part, idx) => idx % 2 ? code(part) : part);

/** A table. Columns are [name, is number]. */
function table(columns, rows, attributes) {
  const cell = (tag, [, number]) => (content) => h(tag, { class: number ? "n" : null }, content);
  return h("div", { class: "scroll" }, h("table", attributes,
    h("thead", null, h("tr", null, columns.map((column) => cell("th", column)(column[0])))),
    h("tbody", null, rows.map((row) => row instanceof Node ? row : h("tr", null, row.map((content, idx) => cell("td", columns[idx])(content)))))));
}

// Human-readable numbers.
const bytes = (n) => n < 10000 ? `${n} B` : n < 1e7 ? `${(n / 1024).toFixed(n < 1e5 ? 1 : 0)} KiB` : `${(n / 1048576).toFixed(1)} MiB`;
const time = (ns) => ns < 1e4 ? `${(ns / 1e3).toFixed(2)} µs` : ns < 1e6 ? `${(ns / 1e3).toFixed(1)} µs` : `${(ns / 1e6).toFixed(3)} ms`;
const percent = (share) => `${+(100 * share).toFixed(1)} %`;
const plural = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

// What is being looked at: a function, and a plan with one of its programs.
const state = { function: 0, program: 0 };
const functionNow = () => R.functions[state.function];
const programNow = () => R.programs[state.program];
const planNow = () => R.plans[programNow() ? programNow().plan : 0];
const stepsOf = (plan, name) => { const of = plan && plan.functions.find((it) => it.name === name); return of ? of.steps : []; };
const stepsNow = () => stepsOf(planNow(), functionNow().name);
const legalOf = (of) => of.phases[of.phases.length - 1];

// Routes. A place in the model is a block or one of the ends.
const to = {
  value: (number, phase, of = functionNow()) => `#/value/${of.name}/${phase || legalOf(of).name}/${number}`,
  kernel: (idx, plan = planNow()) => `#/kernel/${plan.name}/${plan.kernels[idx].symbol}`,
  step: (number, of = functionNow()) => `#/step/${of.name}/${number}`,
  block: (idx) => `#/block/${idx}`,
  line: (number) => `#/spec/${number}`,
  phase: (phase, of = functionNow()) => `#/graph/${of.name}/${phase}`,
};
const blockOf = (place) => { const found = /^blocks\.(\d+)/.exec(place); return found ? Number(found[1]) : null; };
const placeName = (idx) => R.places[idx].name;
function placeLink(idx) {
  const name = placeName(idx), block = blockOf(name);
  return block === null ? code(name || "the model") : link(to.block(block), code(name));
}
const lineLink = (line) => line ? link(to.line(line), `line ${line}`) : "no line";

/** The steps that compute each value of a function's legal graph, by its number. */
const stepsByValue = (() => {
  const known = new Map();
  return (plan, name) => {
    const key = `${plan.name}/${name}`;
    if (!known.has(key)) {
      const found = new Map();
      stepsOf(plan, name).forEach((step, number) => step.nodes.forEach((node) => found.set(node, number)));
      known.set(key, found);
    }
    return known.get(key);
  };
})();

/** The proof of each value that rules made, by its number in the legal graph. */
const proofs = (() => {
  const known = new Map();
  return (name) => {
    if (!known.has(name)) {
      const found = new Map();
      for (const of of R.rewrites.filter((it) => it.function === name))
        of.regions.forEach((region, at) => region.places.forEach((place) => place.results.forEach((number, value) => {
          if (number !== null && region.values[value]) found.set(number, { region, at, value: region.values[value] });
        })));
      known.set(name, found);
    }
    return known.get(name);
  };
})();

// The node at a place of the data: [op, operands, attributes, type, place, identity].
const OP = 0, OPERANDS = 1, ATTRIBUTES = 2, TYPE = 3, PLACE = 4, IDENTITY = 5;
const setOf = (type) => { const found = /\[c(\d+)\b/.exec(type) || /<c(\d+) /.exec(type); return found ? Number(found[1]) : null; };
function typeChip(type) {
  const set = setOf(type);
  return set === null ? h("span", { class: "mono soft" }, type) : h("span", { class: `chip set${set % 6}`, title: `rows of token set c${set}` }, type);
}
function nodeText(node, number, phase, of) {
  const operands = node[OPERANDS].map((operand, idx) => [idx ? ", " : " ", link(to.value(operand, phase, of), `%${operand}`)]);
  return [h("span", { class: "op" }, node[OP]), operands, h("span", { class: "soft" }, node[ATTRIBUTES])];
}
const nodeColumns = [["value"], ["what it is"], ["type"], ["where"]];
const nodeRow = (node, number, phase, of, hit) => h("tr", { class: hit ? "node hit" : "node" },
  h("td", null, link(to.value(number, phase, of), `%${number}`), hit ? " ◀" : ""), h("td", null, nodeText(node, number, phase, of)),
  h("td", null, typeChip(node[TYPE])), h("td", null, placeLink(node[PLACE])));

function specView(hits) {
  const lines = R.spec.replace(/\n$/, "").split("\n");
  return h("pre", { class: "spec", "aria-label": R.written ? "spec" : "resolved spec" }, lines.map((text, idx) =>
    h("a", { class: hits.includes(idx + 1) ? "l hit" : "l", "data-line": idx + 1, href: to.line(idx + 1), "aria-current": hits.includes(idx + 1) ? "true" : null }, text || " ")));
}
const specLine = (line) => line ? h("pre", { class: "spec" }, h("a", { class: "l hit", "data-line": line, href: to.line(line) }, R.spec.split("\n")[line - 1])) : h("p", { class: "soft" }, "No line of the spec asks for it by itself.");

function ruleView(step) {
  return h("div", { class: "rule" }, h("p", null, h("b", null, step.rule), " ", h("span", { class: "soft" }, step.place)),
    h("p", null, code(step.says)),
    h("pre", null, h("span", { class: "gone" }, `− ${step.before}`), "\n", h("span", { class: "added" }, `+ ${step.after}`)));
}

// Code of kernels lies in files of its own, each loaded when it is first looked at.
const codeWaiting = new Map();
window.REPORT_CODE = (key, parts) => { const found = codeWaiting.get(key); if (found) found.done(parts); };
function codeOf(key) {
  if (!codeWaiting.has(key)) {
    let done;
    const parts = new Promise((resolve) => { done = resolve; });
    codeWaiting.set(key, { done, parts });
    document.body.append(h("script", { src: `code/${key}.js`, onerror: () => done([]) }));
  }
  return codeWaiting.get(key).parts;
}
/** The code of kernels side by side: [program, kernel] each. */
function codeView(kernels) {
  const holder = h("div", { class: "code" }, h("p", { class: "soft" }, "…"));
  const keys = [...new Set(kernels.map(([program, kernel]) => `${program}-${kernel}`))];
  Promise.all(keys.map(codeOf)).then((all) => {
    const parts = all.flat();
    holder.replaceChildren(...(parts.length ? parts.map(([stage, target, text]) => h("section", null, h("h3", null, `${stage} for ${target}`), h("pre", { tabindex: 0 }, text)))
      : [h("p", { class: "soft" }, R.code_is_known ? "This report has no code: the code generator that made it is not in the skipc that wrote the report."
        : "Measured times decided this code, and they are not in the artefact: write the report with --tuning and the file that it was compiled with.")]));
  });
  return holder;
}

const VIEWS = {};
const PAGES = [["overview", "Overview"], ["model", "Model and spec"], ["graph", "Graph by phase"], ["kernels", "Kernels"], ["steps", "Steps"], ["memory", "Memory"], ["cost", "Cost against density"], ["rewrites", "Rewrites and proofs"], ["provenance", "Provenance"]];
const PARENT = { value: "graph", kernel: "kernels", step: "steps", block: "model", spec: "model" };

/** Everything that can be found: [text, kind, link]. */
const findable = (() => {
  let all;
  return () => all || (all = [
    ...R.blocks.map((block, idx) => [`block ${idx} ${block.block}`, "block", to.block(idx)]),
    ...R.plans.flatMap((plan) => plan.kernels.map((kernel, idx) => [kernel.symbol, `kernel for ${plan.name}`, to.kernel(idx, plan)])),
    ...R.functions.flatMap((of) => stepsOf(planNow(), of.name).map((step, number) => [`step ${number} ${planNow().kernels[step.kernel].symbol} ${placeName(step.place)}`, `step of ${of.name}`, to.step(number, of)])),
    ...R.functions.flatMap((of) => legalOf(of).nodes.map((node, number) => [`%${number} ${node[OP]}${node[ATTRIBUTES]} ${placeName(node[PLACE])}`, `value of ${of.name}`, to.value(number, null, of)])),
    ...R.spec.split("\n").map((text, idx) => [text.trim(), `line ${idx + 1} of the spec`, to.line(idx + 1)]).filter(([text]) => text),
  ]);
})();
function finder() {
  const list = h("ul", { hidden: true });
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const starts = (text) => words[0] && text.toLowerCase().split(" ").includes(words[0]) ? 0 : 1;
    const hits = words.length ? findable().filter(([text]) => words.every((word) => text.toLowerCase().includes(word))) : [];
    hits.sort((a, b) => starts(a[0]) - starts(b[0]));
    list.hidden = !words.length;
    list.replaceChildren(...(hits.length ? hits.slice(0, 40).map(([text, kind, href]) => h("li", null, h("a", { href, onclick: () => { list.hidden = true; input.value = ""; } }, code(text.slice(0, 90)), h("span", null, kind)))) : [h("li", { class: "soft" }, "nothing has this name")]));
  };
  const input = h("input", { type: "search", id: "find", placeholder: "Find a kernel, step, value, op, block or line of the spec   ( / )", "aria-label": "Find", oninput: show,
    onkeydown: (event) => { const first = list.querySelector("a"); if (event.key === "Enter" && first) first.click(); if (event.key === "ArrowDown" && first) { first.focus(); event.preventDefault(); } if (event.key === "Escape") list.hidden = true; } });
  list.addEventListener("keydown", (event) => {
    const items = [...list.querySelectorAll("a")], at = items.indexOf(document.activeElement);
    if (event.key === "ArrowDown" && items[at + 1]) { items[at + 1].focus(); event.preventDefault(); }
    if (event.key === "ArrowUp") { (items[at - 1] || input).focus(); event.preventDefault(); }
    if (event.key === "Escape") { list.hidden = true; input.focus(); }
  });
  return h("div", { class: "finder" }, input, list);
}

function side(current) {
  const choice = (label, options, chosen, choose) => options.length > 1 && [h("label", { for: label }, label), h("select", { id: label, onchange: (event) => { choose(Number(event.target.value)); render(); } }, options.map((name, idx) => h("option", { value: idx, selected: idx === chosen }, name)))];
  document.getElementById("side").replaceChildren(h("div", { class: "brand" }, R.title), h("div", { class: "soft" }, `skipc ${R.skipc}`),
    h("nav", { "aria-label": "Views" }, PAGES.map(([page, name]) => h("a", { href: `#/${page}`, "aria-current": page === current ? "page" : null }, name))),
    ...[choice("function", R.functions.map((of) => of.name), state.function, (idx) => { state.function = idx; }),
      choice("target", R.programs.map((of) => `${of.target} ${R.plans[of.plan].dtype}`), state.program, (idx) => { state.program = idx; })].flat(2).filter(Boolean),
    h("p", { class: "soft" }, h("kbd", null, "/"), " find  ", h("kbd", null, "["), " ", h("kbd", null, "]"), " views"));
}

let page = "overview";
function render() {
  const [name, ...rest] = decodeURIComponent(location.hash.replace(/^#\/?/, "") || "overview").split("/");
  const main = document.getElementById("main");
  if (name === "main") return main.focus();
  const named = R.functions.findIndex((of) => of.name === rest[0]);
  if (named >= 0 && name !== "kernel") state.function = named;
  page = PARENT[name] || name;
  const view = VIEWS[name];
  const content = view && view(...rest);
  side(page);
  document.title = `${R.title}: ${[name, ...rest.slice(-1)].join(" ")}`;
  main.replaceChildren(finder(), ...(content ? [content].flat(Infinity).filter(Boolean) : [h("h1", { id: "missing" }, "There is no such page"), h("p", null, link("#/overview", "To the overview"))]));
  window.scrollTo(0, 0);
  const hit = main.querySelector(".spec .hit");
  if (hit && name === "spec") hit.scrollIntoView({ block: "center" });
}
window.addEventListener("hashchange", render);
window.addEventListener("keydown", (event) => {
  if (/INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = PAGES.findIndex(([name]) => name === page), next = { "[": -1, "]": 1 }[event.key];
  if (event.key === "/") { document.getElementById("find").focus(); event.preventDefault(); }
  if (next) location.hash = `#/${PAGES[(at + next + PAGES.length) % PAGES.length][0]}`;
});
